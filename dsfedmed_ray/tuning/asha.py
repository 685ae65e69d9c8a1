"""ASHA that remembers: Ray Tune saves every part of a sweep for resuming but its scheduler.

A study that went on would compare its next trials with none of those before, and let the first of
them pass every rung. So the rungs are filled again from what earlier trials wrote into their run
directories.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import AsyncHyperBandScheduler

from dsfedmed_ray.run_directory import RunDirectory
from dsfedmed_ray.tuning.results import BASELINE
from dsfedmed_ray.tuning.trial import validated_lines

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


class RememberingAsha(AsyncHyperBandScheduler):
    """Asynchronous successive halving over the trials of a study's folder.

    Args:
        trials: the folder of the trials' run directories.
        stage: whose rounds or epochs are reported.
        settings: of Ray Tune's scheduler.
    """

    def __init__(self, trials: Path, stage: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._trials = trials
        self._stage = stage
        self._has_remembered = False

    def on_trial_add(self, tune_controller: Any, trial: "Trial") -> None:
        """Before the first trial of a process, records those of earlier processes."""
        if not self._has_remembered:
            self._has_remembered = True
            for folder in sorted(self._trials.glob("*/")):
                if folder.name != BASELINE:
                    self._remember(tune_controller, RunDirectory(folder))
        super().on_trial_add(tune_controller, trial)

    def _remember(self, tune_controller: Any, directory: RunDirectory) -> None:
        if not directory.rounds.exists():  # failed before its first line
            return
        earlier: Any = SimpleNamespace(trial_id=directory.root.name)
        super().on_trial_add(tune_controller, earlier)
        for values in validated_lines(directory, self._stage):
            self.on_trial_result(tune_controller, earlier, values)
