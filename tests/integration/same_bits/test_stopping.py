"""Federated averaging gives the same bytes however often it is stopped and resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.errors import InterruptedRunError, RunDirectoryError
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.runtime.engine import RuntimeConfig

ROUNDS = 3
SERIAL = RuntimeConfig(clients="serial")


class StoppingProgress(SilentProgress):
    """Asks for a stop at the end of one round, as a signal would."""

    def __init__(self, stop: StopRequest, after_round: int) -> None:
        self._stop, self._after_round = stop, after_round

    def advance(self, record: ProgressRecord) -> None:
        if record.index == self._after_round:
            self._stop.signal_number = 15


def stopped(
    train: Callable[..., Any], folder: Path, runtime: RuntimeConfig, after_round: int
) -> None:
    stop = StopRequest()
    with pytest.raises(InterruptedRunError, match=r"signal 15; go on with: .* resume=true"):
        train(folder, runtime, stop=stop, progress=StoppingProgress(stop, after_round))


@pytest.mark.parametrize("checkpoint_every", [1, 2])
def test_stopping_after_every_round_changes_no_byte(
    checkpoint_every: int, train: Callable[..., Any], undisturbed: Any, tmp_path: Path
) -> None:
    runtime = RuntimeConfig(clients="serial", checkpoint_every=checkpoint_every)
    for after_round in range(ROUNDS):
        stopped(train, tmp_path, runtime, after_round)
        lines = read_json_lines(tmp_path / "run" / "rounds.jsonl")
        assert [line["index"] for line in lines] == list(range(after_round + 1))
    assert train(tmp_path, runtime) == undisturbed


@pytest.mark.ray
@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    "variant",
    ["plain", pytest.param("local norms, joins, a virtual clock", marks=pytest.mark.long)],
    indirect=True,
)
def test_a_run_may_go_on_elsewhere(
    train: Callable[..., Any], undisturbed: Any, tmp_path: Path
) -> None:
    stopped(train, tmp_path, SERIAL, 0)
    stopped(train, tmp_path, RuntimeConfig(clients="pool", num_workers=2), 1)
    assert train(tmp_path, SERIAL) == undisturbed


@pytest.mark.parametrize("variant", ["plain"], indirect=True)
def test_checkpoints_of_other_code_are_no_beginning(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    """Else what is made of both would be published under the key of one."""
    stopped(train, tmp_path, SERIAL, 0)
    folder = tmp_path / "run" / "checkpoints" / "train_federated"
    folder.with_suffix(".key").write_text("train_federated-0123456789abcdef")
    with pytest.raises(
        RunDirectoryError, match=f"the checkpoints in {folder} were made with other code, data or"
    ):
        train(tmp_path, SERIAL)


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
    optimizer: str, train: Callable[..., Any], tmp_path: Path
) -> None:
    """Clients keep optimisers of rounds that the run will not remember; those must not be used."""
    rounds = 5
    schedule = {"rounds": rounds, "training": {"optimizer": optimizer}}
    runtime = RuntimeConfig(clients="serial", checkpoint_every=rounds)
    expected = train(tmp_path / "undisturbed", SERIAL, **schedule)
    with pytest.raises(PowerCutError):
        train(tmp_path / "cut", runtime, **schedule, progress=CuttingProgress(rounds - 1))
    assert train(tmp_path / "cut", runtime, **schedule) == expected
