"""ASHA that remembers: Ray Tune saves every part of a sweep for resuming but its scheduler.

A study that went on would compare its next trials with none of those before, and let the first of
them pass every rung. So a trial that Ray Tune brings back fills the rungs again, with what it had
written into its run directory.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import AsyncHyperBandScheduler

from dsfedmed_ray.run_directory import RunDirectory
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

    def on_trial_add(self, tune_controller: Any, trial: "Trial") -> None:
        """Adds a trial; one of an earlier process stands at the rungs where it was judged.

        What it wrote and Ray Tune had not judged, or not saved, is judged when it reports again.
        """
        super().on_trial_add(tune_controller, trial)
        if not trial.has_reported_at_least_once:
            return
        directory = RunDirectory(self._trials / trial.trial_id)
        for values in validated_lines(directory, self._stage):
            if values["epoch"] <= trial.last_result["epoch"]:
                self.on_trial_result(tune_controller, trial, values)
