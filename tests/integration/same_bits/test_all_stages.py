"""All five stages give the same bytes wherever their clients, generators and models are."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.data.synthetic_samples import read_synthetic
from dsfedmed_ray.errors import InterruptedRunError
from dsfedmed_ray.learning.foundation_adaptation import Adaptation
from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.dsfedmed.measure_synthesis import SynthesisChecks
from dsfedmed_ray.methods.dsfedmed.pipeline import DSFedMed
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.runtime.engine import RuntimeConfig, Threads
from dsfedmed_ray.runtime.local_training import LocalTraining

STAGES = (
    "tune_generators",
    "synthesize",
    "train_federated",
    "adapt_foundation",
    "distill_mutually",
    "refine_federated",
    "refine_fedavg",
    "train_on_synthetic",
    "refine_synthetic",
)
NUM_CLIENTS, SAMPLES, ROUNDS, EPOCHS = 5, 2, 3, 2
METHOD = DSFedMed(
    federated=FederatedTraining(
        rounds=ROUNDS,
        local=LocalTraining(training=SegmentationTraining(batch_size=3), optimizer_state="keep"),
    ),
    samples_per_client=SAMPLES,
    adaptation=Adaptation(epochs=EPOCHS, batch_size=4),
    distillation=Distillation(epochs=EPOCHS, batch_size=4, foundation_every=2, validate_every=2),
    refinement_rounds=ROUNDS,
    checks=SynthesisChecks(fit_steps=0),
)
Run = Callable[..., dict[str, Any]]


def outputs(folder: Path) -> dict[str, Any]:
    """Every file of every stage; of the synthetic set the samples, of the journals the lines."""
    found: dict[str, Any] = {}
    for stage in STAGES:
        (root,) = (folder / "store").glob(f"{stage}-*")
        for path in root.iterdir():
            if path.suffix == ".jsonl":
                found[f"{stage}/{path.name}"] = sorted(map(timeless, read_json_lines(path)))
            elif path.suffix != ".parquet":
                found[f"{root.name}/{path.name}"] = path.read_bytes()
    for sample in read_synthetic(next((folder / "store").glob("synthesize-*"))):
        found[sample.sample_id] = (sample.image.tobytes(), sample.mask.tobytes(), str(sample.seed))
    return found


def timeless(line: dict[str, Any]) -> str:
    values = line.get("values", {})
    line["values"] = {k: v for k, v in values.items() if not k.endswith("seconds")}
    return str({key: value for key, value in line.items() if key != "seconds"})


@pytest.fixture(scope="module")
def run(
    toy_split: SplitFederation,
    toy_generator: Any,
    open_context: Callable[..., AbstractContextManager[RunContext]],
) -> Run:
    def done(
        folder: Path, surroundings: dict[str, Any] | None = None, **placed: Any
    ) -> dict[str, Any]:
        runtime = RuntimeConfig(threads=Threads(foundation=1), **placed)
        model = UNetConfig(channels=(4, 8), num_res_units=1, norm="batch")
        with open_context(
            folder,
            runtime,
            toy_split,
            lightweight=model,
            generator=toy_generator,
            **(surroundings or {}),
        ) as context:
            METHOD.run(context)
        return outputs(folder)

    return done


@pytest.fixture(scope="module")
def serial(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Ten samples; of five clients an upload; of each later stage a model, of stage 5 two."""
    found = run(tmp_path_factory.mktemp("serial"), clients="serial")
    weights = [name.partition("-")[0] for name in found if name.endswith(".safetensors")]
    assert [weights.count(stage) for stage in STAGES] == [NUM_CLIENTS, 0, 1, 1, 2, 1, 1, 1, 1]
    assert sum(isinstance(value, tuple) for value in found.values()) == NUM_CLIENTS * SAMPLES
    assert len(found["train_federated/rounds.jsonl"]) == ROUNDS
    return found


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    "placed",
    [
        {"clients": "actors"},
        {"clients": "pool", "num_workers": 2, "chunk_size": 1},
        pytest.param(
            {"clients": "pool", "num_workers": 2, "chunk_size": 16}, marks=pytest.mark.long
        ),
    ],
    ids=["actors", "pool, chunks of 1", "pool, chunks of 16"],
)
def test_placement_changes_no_byte_of_any_stage(
    placed: dict[str, Any], run: Run, serial: dict[str, Any], tmp_path: Path
) -> None:
    """Five clients of 4, 2, 2, 6 and 2 training pairs, BatchNorm, kept optimisers, three rounds."""
    given = run(tmp_path, **placed)
    assert given.keys() == serial.keys()
    assert [name for name in serial if given[name] != serial[name]] == []


class StoppingProgress(SilentProgress):
    """Asks for a stop, as a signal would, where a stage has done this unit."""

    def __init__(self, stop: StopRequest, stage: str, unit: int) -> None:
        self._stop, self._at = stop, (stage, unit)

    def advance(self, record: ProgressRecord) -> None:
        if (record.stage, record.index) == self._at:
            self._stop.signal_number = 15


@pytest.mark.slow
def test_stopping_in_and_between_stages_changes_no_byte(
    run: Run, serial: dict[str, Any], tmp_path: Path
) -> None:
    """After an upload and the last one, after the last job, and between two units of 3 to 6."""
    stops = [
        ("tune_generators", 1),
        ("tune_generators", NUM_CLIENTS - 1),
        ("synthesize", NUM_CLIENTS - 1),
        ("train_federated", 1),
        ("adapt_foundation", 0),
        ("adapt_foundation", EPOCHS - 1),
        ("distill_mutually", 0),
        ("refine_federated", 0),
    ]
    for stage, unit in stops:
        stop = StopRequest()
        surroundings = {"stop": stop, "progress": StoppingProgress(stop, stage, unit)}
        with pytest.raises(InterruptedRunError, match=r"signal 15; go on with: .* resume=true"):
            run(tmp_path, surroundings, clients="serial")
    given = run(tmp_path, clients="serial")
    assert given.keys() == serial.keys()
    assert [name for name in serial if given[name] != serial[name]] == []
