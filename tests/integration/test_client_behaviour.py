"""Clients that keep their normalisation, join later, are away or slow: from settings to summary."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file

from dsfedmed_ray.configuration import build_experiment, compose
from dsfedmed_ray.data.samples import to_batch
from dsfedmed_ray.data.synthetic_samples import read_synthetic
from dsfedmed_ray.errors import ConfigurationError, TooFewRepliesError
from dsfedmed_ray.evaluation.metrics import image_scores
from dsfedmed_ray.experiment import Experiment, run
from dsfedmed_ray.methods.local_norms import read_site_norms
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.report.table import print_table
from dsfedmed_ray.run_directory import RunDirectory, read_json_lines
from dsfedmed_ray.summary import Summary, read_summary

TINY = [
    "experiment=smoke",
    "size=toy",
    "schedule.quality_steps=0",
    "data.pairs_per_site=[6,5,6,5]",
    "lightweight.channels=[4,8]",
    "lightweight.num_res_units=0",
    "lightweight.norm=batch",
    "runtime.clients=serial",
    "method.federated.local.norm_policy=local",
    "method.federated.joins={t1_b: 1}",
]
CLOCK = [
    "runtime.availability.samples_per_second=2",
    "runtime.availability.bytes_per_second=1000",
]


def experiment(folder: Path, *more: str) -> Experiment:
    places = [f"run.dir={folder / 'run'}", f"store.dir={folder / 'store'}"]
    return build_experiment(compose([*TINY, *more, *places]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, RunDirectory]:
    built = experiment(tmp_path_factory.mktemp("fedbn"), "method=fedavg", *CLOCK)
    return built, run(built, SilentProgress())


@pytest.fixture
def summary(finished: tuple[Experiment, RunDirectory]) -> Summary:
    return read_summary(finished[1].summary)


def test_each_site_is_scored_with_what_it_kept(
    finished: tuple[Experiment, RunDirectory], summary: Summary
) -> None:
    """The unseen site, which kept nothing, with the mean; done again here, image by image."""
    built, directory = finished
    split = built.split.apply(built.data.build())
    state = load_file(directory.lightweight_model)
    norms = read_site_norms(directory.lightweight_model.parent)
    assert set(norms) == {"t1_a", "pd_a", "t1_b"}
    num_structures = len(split.federation.structures)
    model = built.lightweight.build(num_structures=num_structures, image_size=64, seed=0)
    for group, site in (("seen", "pd_a"), ("seen", "t1_b"), ("unseen", "t2_a")):
        model.load_trainable_state({**state, **norms.get(site, {})})
        images, masks = to_batch(list(split.samples(site, "test")))
        hd95_px = image_scores(model.eval()(images), masks).hd95_px.double().mean().item()
        scores: Any = summary["metrics"]["lightweight"]
        assert scores[group][site]["hd95_px"] == pytest.approx(hd95_px, rel=1e-6)


def test_what_is_kept_does_not_travel_with_the_rounds(
    finished: tuple[Experiment, RunDirectory],
) -> None:
    """Two rounds, the second with the third client; then what was kept, once.

    Round 0 brings the first state to two clients and, to validate it, their mean. With that they
    train in round 1; the third client gets it then. All three validate the last mean. An update is
    a state with two numbers, of pairs and of loss, in less than 40 bytes.
    """
    lines = list(read_json_lines(finished[1].transfers))
    states = [x for x in lines if x["what"] == "state"]
    (whole,) = {x["num_bytes"] for x in states if x["direction"] == "downlink"}
    assert all(0 < x["num_bytes"] - whole < 40 for x in states if x["direction"] == "uplink")
    count = Counter((x["stage"], x["direction"], x["what"], x["round_index"]) for x in lines)
    assert count == {
        ("train_federated", "downlink", "state", 0): 2 + 2,
        ("train_federated", "uplink", "state", 0): 2,
        ("train_federated", "uplink", "validation_dice", 0): 2,
        ("train_federated", "downlink", "state", 1): 1 + 3,
        ("train_federated", "uplink", "state", 1): 3,
        ("train_federated", "uplink", "validation_dice", 1): 3,
        ("train_federated", "uplink", "norm_state", None): 3,
        ("deliver", "downlink", "state", None): 3,
    }


def test_simulated_seconds_stand_beside_the_real_ones(
    finished: tuple[Experiment, RunDirectory], summary: Summary
) -> None:
    """A round: n_k pairs at 2 a second, and broadcast and update at 1,000 bytes a second."""
    built, directory = finished
    split = built.split.apply(built.data.build())
    size = next(read_json_lines(directory.transfers))["num_bytes"]
    most = [max(split.num_train(client) for client in clients) for clients in ((0, 1), (0, 1, 2))]
    expected = [num / 2 + 2 * size / 1000 for num in most]
    rounds = [line["values"]["simulated_seconds"] for line in read_json_lines(directory.rounds)]
    assert rounds == pytest.approx(expected)
    assert summary["simulated_seconds"] == pytest.approx({"train_federated": sum(expected)})
    console = Console(record=True, width=100)
    print_table(directory, console)
    assert "virtual clock  " in console.export_text()


@pytest.mark.slow
def test_a_client_that_joins_is_in_the_synthetic_set(tmp_path: Path) -> None:
    """All stages with norms kept: the server's model starts from their mean."""
    directory = run(
        experiment(
            tmp_path,
            "schedule.refinement_rounds=0",
            "foundation.weights=random",
            "foundation.input_size=64",
            "runtime.threads.foundation=1",
            "generator.steps=2",
            "generator.num_inference_steps=2",
            "generator.images_per_job=2",
            *CLOCK,
        ),
        SilentProgress(),
    )
    samples = Counter(sample.client for sample in read_synthetic(directory.synthetic))
    assert samples == {"t1_a": 2, "pd_a": 2, "t1_b": 2}
    lines = list(read_json_lines(directory.transfers))
    joined = [x for x in lines if x["client"] == "t1_b" and x["stage"] == "train_federated"]
    assert {x["round_index"] for x in joined} == {1, None}
    assert any(x["what"] == "controlnet" and x["client"] == "t1_b" for x in lines)
    summary = read_summary(directory.summary)
    assert set(summary["baselines"]) == {"fedavg", "fedavg_synthetic"}
    sent: Counter[str] = Counter()
    for line in lines:
        if line["stage"] == "tune_generators":
            sent[line["client"]] += line["num_bytes"]
    upload = max(sent.values()) / 1000  # at 1,000 bytes a second, side by side
    assert summary["simulated_seconds"]["tune_generators"] == pytest.approx(upload)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.federated.joins.t1_b=2", r"joins\.t1_b is 2; .* allowed: 1 to 1 with .*rounds=2"),
        ("lightweight.norm=instance", r"norm_policy is 'local', but the lightweight model's"),
    ],
)
def test_what_does_not_fit_leaves_nothing_behind(
    override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(experiment(tmp_path, "method=fedavg", override), SilentProgress())
    assert list(tmp_path.iterdir()) == []


def test_too_few_that_are_there_stop_the_run(tmp_path: Path) -> None:
    """Before anybody trains: nobody is as fast as the deadline asks."""
    slow = ["runtime.availability.deadline_seconds=0.001"]
    slow.append("runtime.failures.min_replies_fraction=0.5")
    with pytest.raises(TooFewRepliesError, match=r"^round 1: 0 of 2 clients replied"):
        run(experiment(tmp_path, "method=fedavg", *CLOCK, *slow), SilentProgress())
