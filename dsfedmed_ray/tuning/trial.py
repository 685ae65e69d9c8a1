"""One trial: a run without its tests, whose rounds or epochs are reported as they end."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.progress import LineProgress, Progress
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.run_directory import RunDirectory, read_json_lines
from dsfedmed_ray.tuning.overrides import overrides_of

Report = Callable[[dict[str, Any]], None]


class Train(Protocol):
    """Runs the stages of a configuration; tests put something quick in its place."""

    def __call__(self, overrides: Sequence[str], progress: Progress, stop: StopRequest) -> None:
        """Composes the overrides and runs the method's stages."""
        ...


def train_overrides(overrides: Sequence[str], progress: Progress, stop: StopRequest) -> None:
    """The real :class:`Train`."""
    from dsfedmed_ray.configuration import build_experiment, compose
    from dsfedmed_ray.experiment import train

    train(build_experiment(compose(overrides)), progress, stop)


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What all trials of a study share; travels to the workers.

    Attributes:
        folder: receives one run directory a trial.
        store: the stage store of all trials, absolute.
        stage: whose rounds or epochs are reported.
        train: runs a configuration's stages.
    """

    folder: Path
    store: Path
    stage: str
    train: Train = train_overrides


def run_trial(
    plan: TrialPlan,
    name: str,
    overrides: Sequence[str],
    report: Report,
    *,
    log: TextIO,
    stop: StopRequest | None = None,
) -> None:
    """Runs a trial in ``plan.folder / name``, or goes on where it was interrupted.

    Args:
        plan: what all trials share.
        name: of the trial, its folder's name.
        overrides: of the trial, without run directory and store.
        report: receives one dictionary a round or epoch, and one at the end whose ``finished`` is
            True; may end the trial by raising.
        log: receives plain lines.
        stop: ends the trial between two rounds or epochs.

    Raises:
        ConfigurationError: the run reported no validation.
    """
    progress = TrialProgress(RunDirectory(plan.folder / name), plan.stage, report, log)
    own = overrides_of({"run.dir": str(plan.folder / name), "store.dir": str(plan.store)})
    plan.train([*overrides, *own, "resume=true"], progress, stop or StopRequest())
    progress.finish()


class TrialProgress(LineProgress):
    """Reports what ``rounds.jsonl`` says of a stage, and writes plain lines.

    The file is read and not the records that pass by: lines of a stage taken from the store, or
    done before an interruption, are in the file alone.

    Args:
        directory: of the trial.
        stage: whose lines are reported.
        report: receives one dictionary a line.
        log: receives plain lines.
    """

    def __init__(self, directory: RunDirectory, stage: str, report: Report, log: TextIO) -> None:
        super().__init__(log)
        self._directory = directory
        self._stage = stage
        self._report = report
        self._stages_run: list[str] = []
        self._started = time.monotonic()
        self._stage_seconds = 0.0
        self._stage_started: float | None = None
        self._num_reported = 0

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        """Notes that this trial itself runs a stage, and how long."""
        self._stages_run.append(name)
        self._stage_started = time.monotonic()
        try:
            with super().stage(name, total):
                yield
        finally:
            self._stage_seconds += time.monotonic() - self._stage_started
            self._stage_started = None

    def advance(self, record: ProgressRecord) -> None:
        """Reports the stage's newest line."""
        super().advance(record)
        if record.stage == self._stage:
            for values in self._values()[self._num_reported :]:
                self._num_reported += 1
                self._report({**values, "finished": False})

    def finish(self) -> None:
        """Reports what was not reported yet, and that the trial is finished.

        Raises:
            ConfigurationError: the stage reported no validation at all.
        """
        lines = self._values()
        if not lines:
            raise ConfigurationError(
                f"the stage {self._stage} reported no validation_dice; let it validate "
                "(validate_every above 0), or tune by another stage"
            )
        for values in lines[self._num_reported :]:
            self._report({**values, "finished": False})
        self._report({**lines[-1], "finished": True})

    def _values(self) -> list[dict[str, Any]]:
        """What there is to report, one dictionary a validated round or epoch."""
        now = time.monotonic()
        seconds = now - self._started
        running = 0.0 if self._stage_started is None else now - self._stage_started
        own = {
            "stages_run": list(self._stages_run),
            "seconds": seconds,
            "overhead_seconds": seconds - self._stage_seconds - running,
        }
        return [{**values, **own} for values in validated_lines(self._directory, self._stage)]


def validated_lines(directory: RunDirectory, stage: str) -> Iterator[dict[str, Any]]:
    """What a run has reported so far: metrics and number of each validated round or epoch."""
    best = float("-inf")
    for line in read_json_lines(directory.rounds):
        if line["stage"] != stage or "validation_dice" not in line["values"]:
            continue
        best = max(best, line["values"]["validation_dice"])
        yield {
            "best_validation_dice": best,
            "validation_dice": line["values"]["validation_dice"],
            "epoch": line["index"] + 1,
            "num_epochs": line["total"],
        }
