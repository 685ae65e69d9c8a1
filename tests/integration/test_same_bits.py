"""Federated averaging gives the same bytes wherever, and however interrupted, it runs."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.errors import InterruptedRunError
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.fedavg import FederatedTraining, federated_stage
from dsfedmed_ray.methods.method import MODEL_FILE
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.runtime.client import Hospital, HospitalBuilder, LocalTraining
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.engine import Engine, RuntimeConfig

ROUNDS = 3
SERIAL = RuntimeConfig(clients="serial")


def schedule(rounds: int = ROUNDS, **changes: Any) -> FederatedTraining:
    """The optimisers' states outlive rounds, so that they count as well."""
    training = SegmentationTraining(batch_size=3, **changes)
    return FederatedTraining(
        rounds=rounds,
        local=LocalTraining(training=training, optimizer_state="keep"),
        validate_every=0,
    )


@dataclass(frozen=True)
class Trained:
    """What must be equal: the final weights and every line, without its seconds."""

    weights: bytes
    rounds: list[dict[str, Any]]
    transfers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def train(toy_split: SplitFederation, open_context: Callable[..., Any]) -> Callable[..., Trained]:
    def run(
        folder: Path,
        runtime: RuntimeConfig,
        federated: FederatedTraining | None = None,
        **surroundings: Any,
    ) -> Trained:
        model = UNetConfig(channels=(4, 8), num_res_units=1, norm="batch")
        opened = open_context(folder, runtime, toy_split, lightweight=model, **surroundings)
        with opened as context:
            stage = federated_stage(context, federated or schedule())
            rounds = list(read_json_lines(context.directory.rounds))
            transfers = list(read_json_lines(context.directory.transfers))
        for line in rounds:
            line.pop("seconds")
        return Trained((stage.folder / MODEL_FILE).read_bytes(), rounds, transfers)

    return run


@pytest.fixture(scope="module")
def undisturbed(train: Callable[..., Trained], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    trained = train(tmp_path_factory.mktemp("undisturbed"), SERIAL)
    assert [line["index"] for line in trained.rounds] == [0, 1, 2]
    assert len(trained.transfers) == ROUNDS * 5 * 2
    return trained


def test_clients_differ_in_size(toy_split: SplitFederation) -> None:
    """60 % of 8, 4, 6, 10 and 4 pairs, in whole pairs."""
    assert [toy_split.num_train(client) for client in range(5)] == [4, 2, 2, 6, 2]


@pytest.mark.ray
@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    "runtime",
    [
        RuntimeConfig(clients="pool", num_workers=1),
        RuntimeConfig(clients="pool", num_workers=2, chunk_size=1),
        RuntimeConfig(clients="pool", num_workers=4, chunk_size=16),
        RuntimeConfig(clients="actors"),
    ],
    ids=["one worker", "two workers, chunks of 1", "four workers, chunks of 16", "actors"],
)
def test_placement_changes_no_byte(
    runtime: RuntimeConfig, train: Callable[..., Trained], undisturbed: Trained, tmp_path: Path
) -> None:
    assert train(tmp_path, runtime) == undisturbed


class DyingHospital(Hospital):
    """Ends its process once for each of some rounds and clients, without a word."""

    def __init__(self, settings: "DyingBuilder") -> None:
        super().__init__(settings)
        self._dying = settings

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        self._die("before", client_id, order)
        result = super().fit(client_id, broadcast, order)
        self._die("after", client_id, order)
        return result

    def _die(self, when: str, client_id: int, order: FitOrder) -> None:
        if (when, order.round_index, client_id) not in self._dying.deaths:
            return
        mark = self._dying.marks / f"{when}-{order.round_index}-{client_id}"
        if not mark.exists():
            mark.touch()
            os._exit(9)


@dataclass(frozen=True, kw_only=True)
class DyingBuilder(HospitalBuilder):
    """Builds a :class:`DyingHospital`; ``marks`` remembers which deaths have been."""

    marks: Path
    deaths: tuple[tuple[str, int, int], ...]

    def __call__(self) -> DyingHospital:
        return DyingHospital(self)


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("four_cpus")
def test_dying_workers_change_no_byte(
    train: Callable[..., Trained], undisturbed: Trained, tmp_path: Path
) -> None:
    """Before training, after it, and two workers in the same round."""
    import ray

    # Workers cannot import a test's module, so its classes travel whole.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    deaths = (("before", 0, 1), ("after", 1, 0), ("after", 1, 3))
    marks = tmp_path / "marks"
    marks.mkdir()

    class DeadlyEngine:
        def __init__(self, engine: Engine) -> None:
            self._engine = engine

        def start_pool(self, build: HospitalBuilder) -> Any:
            fields = {name: getattr(build, name) for name in build.__dataclass_fields__}
            return self._engine.start_pool(DyingBuilder(**fields, marks=marks, deaths=deaths))

    runtime = RuntimeConfig(clients="pool", num_workers=2, chunk_size=2)
    notes = NotingProgress()
    trained = train(tmp_path, runtime, engine_of=DeadlyEngine, progress=notes)
    assert len(list(marks.iterdir())) == 3
    assert sum("was lost and replaced" in note for note in notes.notes) == 3
    assert trained == undisturbed


class NotingProgress(SilentProgress):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class StoppingProgress(SilentProgress):
    """Asks for a stop at the end of one round, as a signal would."""

    def __init__(self, stop: StopRequest, after_round: int) -> None:
        self._stop, self._after_round = stop, after_round

    def advance(self, record: ProgressRecord) -> None:
        if record.index == self._after_round:
            self._stop.signal_number = 15


def stopped(
    train: Callable[..., Trained], folder: Path, runtime: RuntimeConfig, after_round: int
) -> None:
    stop = StopRequest()
    with pytest.raises(InterruptedRunError, match=r"signal 15; go on with: .* resume=true"):
        train(folder, runtime, stop=stop, progress=StoppingProgress(stop, after_round))


@pytest.mark.parametrize("checkpoint_every", [1, 2])
def test_stopping_after_every_round_changes_no_byte(
    checkpoint_every: int, train: Callable[..., Trained], undisturbed: Trained, tmp_path: Path
) -> None:
    runtime = RuntimeConfig(clients="serial", checkpoint_every=checkpoint_every)
    for after_round in range(ROUNDS):
        stopped(train, tmp_path, runtime, after_round)
        lines = read_json_lines(tmp_path / "run" / "rounds.jsonl")
        assert [line["index"] for line in lines] == list(range(after_round + 1))
    assert train(tmp_path, runtime) == undisturbed


@pytest.mark.ray
@pytest.mark.usefixtures("four_cpus")
def test_a_run_may_go_on_elsewhere(
    train: Callable[..., Trained], undisturbed: Trained, tmp_path: Path
) -> None:
    stopped(train, tmp_path, SERIAL, 0)
    stopped(train, tmp_path, RuntimeConfig(clients="pool", num_workers=2), 1)
    assert train(tmp_path, SERIAL) == undisturbed


class PowerCutError(Exception):
    """Ends a run without a last word."""


class CuttingProgress(SilentProgress):
    def __init__(self, in_round: int) -> None:
        self._in_round = in_round

    def advance(self, record: ProgressRecord) -> None:
        if record.index == self._in_round:
            raise PowerCutError


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_rounds_without_a_checkpoint_are_done_again_to_the_same_bytes(
    optimizer: str, train: Callable[..., Trained], tmp_path: Path
) -> None:
    """Clients keep optimisers of rounds that the run will not remember; those must not be used."""
    rounds = 5
    federated = schedule(rounds, optimizer=optimizer)
    runtime = RuntimeConfig(clients="serial", checkpoint_every=rounds)
    expected = train(tmp_path / "undisturbed", SERIAL, federated)
    with pytest.raises(PowerCutError):
        train(tmp_path / "cut", runtime, federated, progress=CuttingProgress(rounds - 1))
    assert train(tmp_path / "cut", runtime, federated) == expected
