"""What the driver sees of a sweep: a trial's lines, the stop signal, and the results.

Ray Tune stores its callbacks with the experiment and brings back old ones on resuming. So the
callback holds nothing; it speaks to the sweep that this process is running.
"""

import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ray.tune import Callback

from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.tuning.overrides import command_line, overrides_of, rounded
from dsfedmed_ray.tuning.results import Status, TrialResult, short_names, trial_result
from dsfedmed_ray.units import format_seconds

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


class Sweep:
    """Receives what Ray Tune tells of trials.

    Args:
        base: overrides of the command line, for each trial's own line.
        metric: the space's.
        note: receives a line where a trial starts, and two where it ends.
        stop: set by signal handlers.
    """

    def __init__(
        self,
        base: tuple[str, ...],
        metric: str,
        note: Callable[[str], None],
        stop: StopRequest,
    ) -> None:
        self._base = base
        self._metric = metric
        self._note = note
        self._stop = stop
        self._asked_to_end = False
        self._failed: list[Trial] = []
        self.results: tuple[TrialResult, ...] = ()

    def started(self, trial: "Trial") -> None:
        """Says what a trial tries."""
        self._note(f"trial {trial.trial_id}  starts  {_said(trial.config)}")

    def ended(self, trial: "Trial") -> None:
        """Says what a trial found, and the one line that repeats it."""
        result = self._result(trial)
        score = "no score" if result.score is None else f"{result.score:.4f}"
        early = "" if (trial.last_result or {}).get("finished") else "  stopped early"
        self._note(
            f"trial {result.name}  {self._metric.replace('_', ' ')} {score}  "
            f"epoch {result.epoch}/{result.num_epochs}{early}  {format_seconds(result.seconds)}"
        )
        self._say_how_to_repeat(result)

    def failed(self, trial: "Trial") -> None:
        """Keeps a failed trial until Ray Tune has written down why."""
        self._failed.append(trial)

    def all_ended(self, trials: "list[Trial]") -> None:
        """Keeps the results."""
        self._say_failures()
        by_name = sorted(trials, key=lambda trial: str(trial.trial_id))
        self.results = tuple(map(self._result, by_name))

    def step_ended(self) -> None:
        """Ends the sweep if a signal came: Ray Tune saves its state on SIGUSR1."""
        self._say_failures()
        if self._stop.signal_number is not None and not self._asked_to_end:
            self._asked_to_end = True
            signal.raise_signal(signal.SIGUSR1)

    def _say_failures(self) -> None:
        for trial in [trial for trial in self._failed if trial.get_error() is not None]:
            self._failed.remove(trial)
            self._note(f"trial {trial.trial_id}  failed: {_one_line(trial.get_error())}")
            self._say_how_to_repeat(self._result(trial))

    def _say_how_to_repeat(self, result: TrialResult) -> None:
        self._note(f"trial {result.name}  repeat it: {command_line(result.overrides)}")

    def _result(self, trial: "Trial") -> TrialResult:
        reported: Mapping[str, Any] = trial.last_result or {}
        error = _one_line(trial.get_error()) if trial.status == "ERROR" else None
        return trial_result(
            trial.trial_id,
            {path: rounded(value) for path, value in trial.config.items()},
            (*self._base, *overrides_of(trial.config)),
            reported,
            metric=self._metric,
            status=_status(trial, reported),
            error=error,
        )


def _status(trial: "Trial", reported: Mapping[str, Any]) -> Status:
    if trial.status == "ERROR":
        return "failed"
    if trial.status != "TERMINATED":
        return "unfinished"
    return "finished" if reported.get("finished") else "stopped early"


def _said(values: Mapping[str, Any]) -> str:
    names = short_names(sorted(values))
    return "  ".join(f"{name} {rounded(values[path])}" for path, name in names.items())


def _one_line(error: BaseException | None) -> str:
    """The error's name and words, without the traceback that Ray wraps them in."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return re.sub(r"^(\w+\.)+", "", lines[-1]) if lines else type(cause).__name__


_current: ContextVar[Sweep] = ContextVar("sweep")


@contextmanager
def listening(sweep: Sweep) -> Iterator[None]:
    """Gives this sweep what the callback hears inside the block."""
    token = _current.set(sweep)
    before = signal.getsignal(signal.SIGUSR1)
    try:
        yield
    finally:
        _current.reset(token)
        signal.signal(signal.SIGUSR1, before)


class SweepCallback(Callback):
    """Hands Ray Tune's events to the current :class:`Sweep`."""

    def on_trial_start(
        self, iteration: int, trials: "list[Trial]", trial: "Trial", **info: Any
    ) -> None:
        """See :meth:`Sweep.started`."""
        _current.get().started(trial)

    def on_trial_complete(
        self, iteration: int, trials: "list[Trial]", trial: "Trial", **info: Any
    ) -> None:
        """See :meth:`Sweep.ended`."""
        _current.get().ended(trial)

    def on_trial_error(
        self, iteration: int, trials: "list[Trial]", trial: "Trial", **info: Any
    ) -> None:
        """See :meth:`Sweep.failed`."""
        _current.get().failed(trial)

    def on_step_end(self, iteration: int, trials: "list[Trial]", **info: Any) -> None:
        """See :meth:`Sweep.step_ended`."""
        _current.get().step_ended()

    def on_experiment_end(self, trials: "list[Trial]", **info: Any) -> None:
        """See :meth:`Sweep.all_ended`."""
        _current.get().all_ended(trials)
