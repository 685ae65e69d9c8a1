"""The run directory is a contract: every method, from the command line's settings to the report.

One file, though long: its tests look at a handful of runs, which are made once.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from dsfedmed_ray.configuration import build_experiment, compose, conf_dir
from dsfedmed_ray.experiment import run, train
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.report.html import write_report
from dsfedmed_ray.run_directory import RunDirectory, read_json_lines
from dsfedmed_ray.summary import read_summary

TINY = [
    "experiment=smoke",
    "size=toy",
    "data.pairs_per_site=[8,8,8,5]",
    "foundation.weights=random",
    "foundation.input_size=64",
    "lightweight.channels=[4,8]",
    "lightweight.num_res_units=0",
    "runtime.threads.foundation=1",
]
GENERATOR = [
    "generator.steps=2",
    "generator.num_inference_steps=2",
    "generator.images_per_job=2",
    "generator.style_diversity=0",
    "schedule.samples_per_client=4",
]
STAGES = {
    "dsfedmed": [
        "tune_generators",
        "synthesize",
        "measure_synthesis",
        "train_federated",
        "adapt_foundation",
        "distill_mutually",
        "refine_federated",
        "train_on_synthetic",
        "refine_fedavg",
        "refine_synthetic",
    ],
    "fedavg": ["train_federated"],
    "centralized": ["train_centralized"],
}

SENDING = ("tune_generators", "distill_mutually", "refine_federated")
"""What of DSFedMed's own stages sends."""

Run = Callable[..., RunDirectory]


class Notes(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def run_tiny(folder: Path) -> Run:
    """Runs one method to its report; a second call of the same name gives the finished run."""
    done: dict[str, RunDirectory] = {}

    def started(name: str, *more: str, notes: Notes | None = None) -> RunDirectory:
        if name not in done:
            overrides = [*TINY, *more, f"run.dir={folder / name}", f"store.dir={folder / 'store'}"]
            done[name] = run(build_experiment(compose(overrides)), notes or Notes())
            write_report(done[name])
        return done[name]

    return started


@pytest.fixture(params=sorted(STAGES))
def finished(request: pytest.FixtureRequest, run_tiny: Run) -> RunDirectory:
    """A serial run of each method."""
    more = GENERATOR if request.param == "dsfedmed" else []
    return run_tiny(request.param, f"method={request.param}", "runtime.clients=serial", *more)


def test_every_kind_of_method_is_here() -> None:
    """Other rows are these over other models."""
    files = [path.stem for path in (conf_dir() / "method").glob("*.yaml")]
    kinds = {compose([f"method={name}"]).method["_target_"] for name in files}
    assert kinds == {compose([f"method={name}"]).method["_target_"] for name in STAGES}


def test_files_of_a_run(finished: RunDirectory) -> None:
    method = finished.root.name
    files = {str(path.relative_to(finished.root)) for path in finished.root.rglob("*.*")}
    assert files >= {
        "config.yaml",
        "summary.json",
        "rounds.jsonl",
        "transfers.jsonl",
        "models/lightweight.safetensors",
        "report.html",
        "figures/predictions.png",
        "figures/rounds.png",
    }
    assert not [name for name in files if Path(name).name.startswith(".")]
    if method != "fedavg":  # its rounds are those of dsfedmed, taken from the store
        assert any((finished.checkpoints / STAGES[method][-1]).glob("unit-*.pt"))
    assert all(value.isfinite().all() for value in load_file(finished.lightweight_model).values())
    assert finished.report.read_text().startswith("<!doctype html>")


def test_summary_of_a_run(finished: RunDirectory) -> None:
    method = finished.root.name
    summary = read_summary(finished.summary)
    assert summary["method"] == method
    assert summary["split"] == {"unseen_site": "t2_a"}
    models = ["lightweight", "foundation"] if method == "dsfedmed" else ["lightweight"]
    assert list(summary["metrics"]) == models
    for groups in summary["metrics"].values():
        assert set(groups["seen"]) == {"t1_a", "pd_a", "t1_b", "mean"}  # type: ignore[index]
        assert set(groups["unseen"]) == {"t2_a", "mean"}  # type: ignore[index]
    assert list(summary["inference_ms"]) == models
    times = summary["wall_seconds"]
    assert list(times) == [*STAGES[method], "evaluate", "total"]
    assert sum(seconds for name, seconds in times.items() if name != "total") <= times["total"]
    assert set(summary["baselines"]) == (
        {"fedavg", "fedavg_refined", "fedavg_synthetic"} if method == "dsfedmed" else set()
    )
    assert {"python", "torch", "ray", "dsfedmed-ray"} <= set(summary["versions"])


def test_ledger_totals_are_the_sum_of_the_lines(finished: RunDirectory) -> None:
    """Summed here line by line; three clients."""
    total: Counter[str] = Counter()
    for line in read_json_lines(finished.transfers):
        assert line["num_bytes"] > 0
        assert line["client"] in ("t1_a", "pd_a", "t1_b")
        total["all"] += line["num_bytes"]
        total[line["stage"]] += line["num_bytes"]
        total[line["direction"]] += line["num_bytes"]
    communication = read_summary(finished.summary)["communication"]
    assert communication["total_bytes"] == total.pop("all")
    assert communication["per_client_bytes"] == pytest.approx(communication["total_bytes"] / 3)
    assert communication["by_direction"] == {
        direction: total.pop(direction, 0) for direction in ("uplink", "downlink")
    }
    assert communication["by_stage"] == dict(total)


def test_rounds_are_in_order(finished: RunDirectory) -> None:
    indices: dict[str, list[int]] = {}
    for line in read_json_lines(finished.rounds):
        indices.setdefault(line["stage"], []).append(line["index"])
    assert list(indices) == STAGES[finished.root.name]
    for stage in ("train_federated", "train_centralized"):
        assert indices.get(stage, [0, 1]) == [0, 1]


def test_the_synthetic_set_is_read_by_pyarrow_alone(run_tiny: Run) -> None:
    directory = run_tiny("dsfedmed", "method=dsfedmed", "runtime.clients=serial", *GENERATOR)
    table = pq.read_table(sorted(directory.synthetic.glob("*.parquet")))
    assert table.num_rows == 3 * 4
    assert Counter(table["client"].to_pylist()) == {"t1_a": 4, "pd_a": 4, "t1_b": 4}
    images = table["image"].combine_chunks().to_numpy_ndarray()
    masks = table["mask"].combine_chunks().to_numpy_ndarray()
    assert (images.shape, images.dtype.name) == ((12, 64, 64, 3), "uint8")
    assert (masks.shape, set(masks.ravel().tolist()) <= {0, 1}) == ((12, 64, 64, 3), True)
    assert (directory.figures / "synthetic.png").exists()


def test_the_synthetic_set_is_measured_at_every_client(run_tiny: Run) -> None:
    """Four pairs and four images a client: enough for each number, the kernel distance too."""
    directory = run_tiny("dsfedmed", "method=dsfedmed", "runtime.clients=serial", *GENERATOR)
    quality = read_summary(directory.summary)["generator"]
    assert quality is not None
    clients: dict[str, Any] = quality["clients"]  # type: ignore[typeddict-item]
    assert len(clients) == 3
    for measured in clients.values():
        assert {"tstr_ratio", "mask_agreement", "kid", "memorisation_ratio"} <= measured.keys()
    distances = [measured["kid"] for measured in clients.values()]
    assert quality["kid"] == pytest.approx(sum(distances) / 3)
    assert len(set(distances)) == 3


def test_a_second_run_takes_every_stage_from_the_store(run_tiny: Run) -> None:
    """And has the same bytes and lines; stage 3 is shared with the method ``fedavg``."""
    first = run_tiny("dsfedmed", "method=dsfedmed", "runtime.clients=serial", *GENERATOR)
    notes = Notes()
    second = run_tiny("again", "method=dsfedmed", "runtime.clients=serial", *GENERATOR, notes=notes)
    taken = [note.partition(":")[0] for note in notes.notes if "taken from the stage store" in note]
    assert taken == STAGES["dsfedmed"]
    same_bytes(first, second)
    assert second.rounds.read_bytes() == first.rounds.read_bytes()
    assert second.transfers.read_bytes() == first.transfers.read_bytes()


def same_bytes(first: RunDirectory, second: RunDirectory) -> None:
    assert second.lightweight_model.read_bytes() == first.lightweight_model.read_bytes()
    for key in ("metrics", "communication", "baselines", "generator"):
        left, right = (json.loads(run.summary.read_text())[key] for run in (first, second))
        if key == "baselines":
            for row in [*left.values(), *right.values()]:
                row.pop("inference_ms")
        assert left == right, key


def test_the_synthetic_row_is_stage_5_without_what_the_foundation_model_gives(
    run_tiny: Run,
) -> None:
    """With every sample kept and no divergence both take the same steps, to the last bit.

    And so do the rounds of stage 6. What the row sends is not in the ledger of the method.
    """
    directory = run_tiny(
        "no-divergence",
        *("method=dsfedmed", "runtime.clients=serial", *GENERATOR),
        *("method.distillation.mutual=false", "method.distillation.kl_weight=0"),
        *("method.selection.ratio=1.0", "method.distillation.lightweight_learning_rate=0.01"),
    )
    lines = list(read_json_lines(directory.rounds))
    losses = {
        stage: [
            (line["values"]["loss"], line["values"]["validation_dice"])
            for line in lines
            if line["stage"] == stage
        ]
        for stage in (
            *("distill_mutually", "train_on_synthetic"),
            *("refine_federated", "refine_synthetic", "refine_fedavg"),
        )
    }
    assert losses["train_on_synthetic"] == losses["distill_mutually"] != []
    assert losses["refine_synthetic"] == losses["refine_federated"] != losses["refine_fedavg"]
    summary = read_summary(directory.summary)
    row = summary["baselines"]["fedavg_synthetic"]
    assert row["lightweight"] == summary["metrics"]["lightweight"]
    assert row["per_client_bytes"] == summary["communication"]["per_client_bytes"]
    stages = set(summary["communication"]["by_stage"])
    assert stages == {*STAGES["fedavg"], *SENDING, "deliver"}


def test_a_trial_trains_no_row_of_the_table(run_tiny: Run, tmp_path: Path) -> None:
    """A study's trial has no table."""
    finished = run_tiny("dsfedmed", "method=dsfedmed", "runtime.clients=serial", *GENERATOR)
    overrides = [*TINY, *GENERATOR, "method=dsfedmed", "runtime.clients=serial"]
    overrides += [f"run.dir={tmp_path / 'run'}", f"store.dir={finished.root.parent / 'store'}"]
    trained = train(build_experiment(compose(overrides)), Notes())
    stages = {line["stage"] for line in read_json_lines(trained.rounds)}
    only_for_the_table = STAGES["dsfedmed"][-3:]
    assert stages == set(STAGES["dsfedmed"]) - {"measure_synthesis", *only_for_the_table}


@pytest.mark.ray
@pytest.mark.slow
def test_one_actor_a_client_and_one_for_the_foundation_model(run_tiny: Run, tmp_path: Path) -> None:
    """Seen from outside, by process title: as many processes as parties, and the same bytes."""
    from dsfedmed_ray.records import ProgressRecord

    first = run_tiny("dsfedmed", "method=dsfedmed", "runtime.clients=serial", *GENERATOR)
    parties: dict[str, set[int]] = {"ClientWorker": set(), "FoundationServer": set()}

    class Watching(Notes):
        def advance(self, record: ProgressRecord) -> None:
            for process, title in titles_below().items():
                for name, processes in parties.items():
                    if title.startswith(f"ray::{name}"):
                        processes.add(process)

    overrides = [*TINY, *GENERATOR, "method=dsfedmed", "runtime.clients=actors"]
    overrides += ["runtime.num_cpus=4", "runtime.object_store_bytes=134217728"]
    overrides += [f"run.dir={tmp_path / 'run'}", f"store.dir={tmp_path / 'store'}"]
    second = run(build_experiment(compose(overrides)), Watching())
    assert {name: len(found) for name, found in parties.items()} == {
        "ClientWorker": 3,
        "FoundationServer": 1,
    }
    everyone = set.union(*parties.values())
    assert len(everyone) == 4
    assert os.getpid() not in everyone
    same_bytes(first, second)


def titles_below() -> dict[int, str]:
    """Titles of all processes that this one started, by process id."""
    titles = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            titles[process.pid] = " ".join(process.cmdline())
    return titles


def test_stages_of_a_run_that_may_drop_clients_are_not_shared(run_tiny: Run) -> None:
    """What they hold depends on who failed."""
    run_tiny("fedavg", "method=fedavg", "runtime.clients=serial")
    notes = Notes()
    dropping = ["method=fedavg", "runtime.clients=serial", "runtime.failures.on_client_error=drop"]
    run_tiny("dropping", *dropping, notes=notes)
    assert not any("taken from the stage store" in note for note in notes.notes)
