"""The loop that every trained stage shares: do a unit, write its lines, save, go on.

A unit is a round or an epoch. Whatever ends a run (a signal, a lost process, a power cut), the
stage goes on after its newest checkpoint and gives the same bytes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dsfedmed_ray.errors import FoundationLostError, InterruptedRunError
from dsfedmed_ray.progress import Progress
from dsfedmed_ray.records import ProgressRecord, Transfer
from dsfedmed_ray.runtime.checkpoints import CheckpointFolder
from dsfedmed_ray.runtime.journal import Journal

MAX_FOUNDATION_LOSSES = 10


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """What one unit did.

    Attributes:
        values: finite numbers by name, for ``rounds.jsonl``.
        transfers: what travelled.
    """

    values: dict[str, float]
    transfers: Sequence[Transfer] = field(default_factory=tuple)


class ResumableWork(Protocol):
    """A stage's work, unit by unit."""

    def begin(self, content: dict[str, Any] | None) -> None:
        """Starts fresh, or from the content of a checkpoint; may be called again."""
        ...

    def advance(self, unit: int) -> UnitResult:
        """Does one unit."""
        ...

    def is_finished(self) -> bool:
        """Whether the stage ends before its planned units (patience)."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Tensors and plain values from which :meth:`begin` goes on."""
        ...


class StopRequest:
    """Set by a signal handler; asked between units."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def raise_if_set(self, hint: str) -> None:
        """Ends the run between two units.

        Raises:
            InterruptedRunError: a signal came.
        """
        if self.signal_number is not None:
            raise InterruptedRunError(self.signal_number, hint)


@dataclass(frozen=True, kw_only=True)
class UnitLoop:
    """Where a stage's units are written.

    Attributes:
        journal: receives the lines.
        progress: shows them.
        checkpoints: the stage's folder.
        stop: the signal's flag.
        resume_hint: how to go on, one line.
        checkpoint_every: units between two checkpoints; the last unit is always saved.
    """

    journal: Journal
    progress: Progress
    checkpoints: CheckpointFolder
    stop: StopRequest
    resume_hint: str
    checkpoint_every: int = 1

    def run(
        self,
        stage: str,
        total: int,
        work: ResumableWork,
        *,
        finish: Callable[[], None],
        recover: Callable[[], None] | None = None,
    ) -> None:
        """Runs all units that are not done yet.

        Args:
            stage: its name.
            total: planned units.
            work: does them.
            finish: saves the result; what may lose the foundation process belongs in here.
            recover: replaces a lost foundation process; the stage then goes on from its newest
                checkpoint.

        Raises:
            InterruptedRunError: a signal came; the last finished unit is saved.
            FoundationLostError: the foundation process died and cannot be replaced any more.
        """
        with self.progress.stage(stage, total):
            for loss in range(MAX_FOUNDATION_LOSSES + 1):
                try:
                    self._run_from_checkpoint(stage, total, work)
                    finish()
                    return
                except FoundationLostError:
                    if recover is None or loss == MAX_FOUNDATION_LOSSES:
                        raise
                    self.progress.note(
                        f"{stage}: the foundation model's process died; it is started again and "
                        "goes on from the last checkpoint"
                    )
                    recover()

    def _run_from_checkpoint(self, stage: str, total: int, work: ResumableWork) -> None:
        newest = self.checkpoints.newest()
        first = 0 if newest is None else newest.unit + 1
        self.journal.keep(stage, up_to_unit=first - 1)
        work.begin(None if newest is None else newest.content)
        for unit in range(first, total):
            if work.is_finished():
                return
            started = time.perf_counter()
            result = work.advance(unit)
            record = ProgressRecord(
                stage=stage,
                index=unit,
                total=total,
                seconds=time.perf_counter() - started,
                values=result.values,
            )
            self.journal.progress(record)
            self.journal.transfers(result.transfers)
            self.progress.advance(record)
            stopping = self.stop.signal_number is not None
            last = unit + 1 == total or work.is_finished()
            if stopping or last or (unit + 1) % self.checkpoint_every == 0:
                self.checkpoints.save(unit, work.snapshot())
            if stopping:  # a signal that comes while saving waits for the next unit's end
                self.stop.raise_if_set(self.resume_hint)
