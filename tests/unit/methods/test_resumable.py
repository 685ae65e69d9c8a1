"""The loop of every stage, with a work that adds numbers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from dsfedmed_ray.errors import FoundationLostError, InterruptedRunError
from dsfedmed_ray.methods.resumable import (
    MAX_FOUNDATION_LOSSES,
    StopRequest,
    UnitLoop,
    UnitResult,
)
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord, Transfer
from dsfedmed_ray.run_directory import RunDirectory, read_json_lines
from dsfedmed_ray.runtime.checkpoints import CheckpointFolder
from dsfedmed_ray.runtime.journal import Journal

STAGE = "train_federated"


@dataclass
class Adding:
    """Unit ``u`` adds ``u + 1``; may fail in a unit, and may finish early."""

    fails_in: dict[int, Exception] = field(default_factory=dict)
    finishes_after: int = 99
    total: torch.Tensor = field(default_factory=lambda: torch.zeros(1))
    last: int = -1
    done: list[int] = field(default_factory=list)

    def begin(self, content: dict[str, Any] | None) -> None:
        self.total = torch.zeros(1) if content is None else content["total"]
        self.last = -1 if content is None else content["last"]

    def advance(self, unit: int) -> UnitResult:
        if unit in self.fails_in:
            raise self.fails_in.pop(unit)
        self.total, self.last = self.total + unit + 1, unit
        self.done.append(unit)
        transfer = Transfer(
            client="a", direction="uplink", stage=STAGE, what="x", num_bytes=1, round_index=unit
        )
        return UnitResult(values={"total": float(self.total)}, transfers=[transfer])

    def is_finished(self) -> bool:
        return self.last >= self.finishes_after

    def snapshot(self) -> dict[str, Any]:
        return {"total": self.total, "last": self.last}


@dataclass
class Surroundings:
    """One run directory; a new loop on it is a resumed run."""

    root: Path
    stop: StopRequest = field(default_factory=StopRequest)
    notes: list[str] = field(default_factory=list)
    on_advance: Callable[[ProgressRecord], None] = lambda record: None

    def loop(self, checkpoint_every: int = 1) -> UnitLoop:
        surroundings = self

        class Noting(SilentProgress):
            def note(self, text: str) -> None:
                surroundings.notes.append(text)

            def advance(self, record: ProgressRecord) -> None:
                surroundings.on_advance(record)

        return UnitLoop(
            journal=Journal(RunDirectory(self.root)),
            progress=Noting(),
            checkpoints=CheckpointFolder(self.root / "checkpoints", self.notes.append),
            stop=self.stop,
            resume_hint="go on with: resume=true",
            checkpoint_every=checkpoint_every,
        )

    def lines(self) -> list[tuple[int, float]]:
        lines = read_json_lines(self.root / "rounds.jsonl")
        return [(line["index"], line["values"]["total"]) for line in lines]

    def transfers(self) -> list[int]:
        return [line["round_index"] for line in read_json_lines(self.root / "transfers.jsonl")]


@pytest.fixture
def here(tmp_path: Path) -> Surroundings:
    return Surroundings(tmp_path)


def nothing() -> None:
    """Most works have nothing to save at their end."""


WHOLE = [(0, 1.0), (1, 3.0), (2, 6.0), (3, 10.0), (4, 15.0)]
"""Sums of 1, 2, 3, ..."""


def test_an_undisturbed_run(here: Surroundings) -> None:
    work = Adding()
    here.loop().run(STAGE, 5, work, finish=nothing)
    assert here.lines() == WHOLE
    assert here.transfers() == [0, 1, 2, 3, 4]
    assert work.total.item() == 15


@pytest.mark.parametrize("checkpoint_every", [1, 2, 3, 9])
@pytest.mark.parametrize("crash", [0, 1, 2, 3, 4])
def test_a_crash_in_any_unit_leaves_no_trace(
    crash: int, checkpoint_every: int, here: Surroundings
) -> None:
    with pytest.raises(KeyError):
        here.loop(checkpoint_every).run(STAGE, 5, Adding({crash: KeyError()}), finish=nothing)
    resumed = Adding()
    here.loop(checkpoint_every).run(STAGE, 5, resumed, finish=nothing)
    assert resumed.total.item() == 15
    assert here.lines() == WHOLE
    assert here.transfers() == [0, 1, 2, 3, 4]
    assert resumed.done == list(range(crash // checkpoint_every * checkpoint_every, 5))


def test_lines_without_their_checkpoint_are_written_again(here: Surroundings) -> None:
    """The power went between a unit's lines and its checkpoint."""

    def cut(record: ProgressRecord) -> None:
        if record.index == 2:
            raise KeyError

    here.on_advance = cut
    with pytest.raises(KeyError):
        here.loop().run(STAGE, 5, Adding(), finish=nothing)
    assert len(here.lines()) == 3
    here.on_advance = lambda record: None
    resumed = Adding()
    here.loop().run(STAGE, 5, resumed, finish=nothing)
    assert resumed.done == [2, 3, 4]
    assert here.lines() == WHOLE
    assert here.transfers() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("checkpoint_every", [1, 9])
def test_a_signal_saves_the_unit_and_ends_the_run(
    checkpoint_every: int, here: Surroundings
) -> None:
    def signal(record: ProgressRecord) -> None:
        if record.index == 1:
            here.stop.signal_number = 15

    here.on_advance = signal
    with pytest.raises(InterruptedRunError, match=r"signal 15; go on with: resume=true"):
        here.loop(checkpoint_every).run(STAGE, 5, Adding(), finish=nothing)
    here.stop.signal_number = None
    resumed = Adding()
    here.loop(checkpoint_every).run(STAGE, 5, resumed, finish=nothing)
    assert resumed.done == [2, 3, 4]
    assert here.lines() == WHOLE


def test_a_finished_stage_is_not_done_again(here: Surroundings) -> None:
    here.loop().run(STAGE, 5, Adding(), finish=nothing)
    again = Adding()
    here.loop().run(STAGE, 5, again, finish=nothing)
    assert again.done == []
    assert again.total.item() == 15
    assert here.lines() == WHOLE


def test_a_stage_that_finishes_early_saves_its_last_unit(here: Surroundings) -> None:
    work = Adding(finishes_after=2)
    here.loop(checkpoint_every=9).run(STAGE, 5, work, finish=nothing)
    assert work.done == [0, 1, 2]
    again = Adding(finishes_after=2)
    here.loop(checkpoint_every=9).run(STAGE, 5, again, finish=nothing)
    assert again.done == []
    assert again.total.item() == 6
    assert here.lines() == WHOLE[:3]


def test_a_lost_foundation_process_is_replaced(here: Surroundings) -> None:
    replaced = []
    work = Adding({3: FoundationLostError("died")})
    here.loop(checkpoint_every=2).run(
        STAGE, 5, work, finish=nothing, recover=lambda: replaced.append(1)
    )
    assert replaced == [1]
    assert work.done == [0, 1, 2, 2, 3, 4]
    assert work.total.item() == 15
    assert here.lines() == WHOLE
    assert here.transfers() == [0, 1, 2, 3, 4]
    assert here.notes == [
        "train_federated: the foundation model's process died; it is started again and goes on "
        "from the last checkpoint"
    ]


def test_a_foundation_process_that_always_dies_ends_the_run(here: Surroundings) -> None:
    replaced: list[int] = []

    class Dying(Adding):
        def advance(self, unit: int) -> UnitResult:
            raise FoundationLostError("died")

    with pytest.raises(FoundationLostError):
        here.loop().run(STAGE, 5, Dying(), finish=nothing, recover=lambda: replaced.append(1))
    assert len(replaced) == MAX_FOUNDATION_LOSSES


def test_a_stage_without_a_foundation_model_does_not_recover(here: Surroundings) -> None:
    with pytest.raises(FoundationLostError):
        here.loop().run(STAGE, 5, Adding({0: FoundationLostError("died")}), finish=nothing)


def test_a_foundation_process_lost_at_the_end_is_replaced_too(here: Surroundings) -> None:
    """The result is fetched from it after the last unit; no unit is done again for that."""
    saved: list[float] = []
    losses = [FoundationLostError("died")]
    work = Adding()

    def save() -> None:
        if losses:
            raise losses.pop()
        saved.append(work.total.item())

    here.loop().run(STAGE, 5, work, finish=save, recover=lambda: None)
    assert saved == [15]
    assert work.done == [0, 1, 2, 3, 4]
    assert here.lines() == WHOLE
