"""A study: the baseline, then trials under Ray Tune, then results.

The untouched configuration runs first, on the whole machine. It is the reference of the table, and
its stages are in the store when the trials start: a trial runs what its values touch, and no more.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dsfedmed_ray.errors import ConfigurationError, InterruptedRunError
from dsfedmed_ray.experiment import check_models
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.progress import LineProgress
from dsfedmed_ray.run_directory import write_json
from dsfedmed_ray.tuning.overrides import overrides_of
from dsfedmed_ray.tuning.results import (
    BASELINE,
    StudyResult,
    TrialResult,
    require_a_score,
    trial_result,
    write_best,
    write_results,
)
from dsfedmed_ray.tuning.space import TuneSpace, load_space
from dsfedmed_ray.tuning.space_check import check_space
from dsfedmed_ray.tuning.study_folder import StudyFolder, check_study, study_settings
from dsfedmed_ray.tuning.trial import Train, TrialPlan, run_trial, train_overrides
from dsfedmed_ray.tuning.trial_resources import trial_bundles

if TYPE_CHECKING:
    from ray.tune import Tuner

SEARCH_SEED = 0
MAX_EPOCHS = 100_000
"""ASHA's last rung; trials end by themselves before it."""


def default_study(space_file: Path) -> Path:
    """``runs/tune-<space>``: the same place for ``--resume``."""
    return Path("runs") / f"tune-{space_file.stem}"


def tune(
    space_file: Path,
    overrides: Sequence[str],
    *,
    study: Path,
    stream: TextIO,
    num_trials: int | None = None,
    resume: bool = False,
    stop: StopRequest | None = None,
    train: Train = train_overrides,
) -> StudyResult:
    """Runs a study to its end.

    Args:
        space_file: what is tuned.
        overrides: of every run, as for ``dsfedmed run``.
        study: the study's folder.
        stream: receives plain lines, usually standard error.
        num_trials: instead of the space's budget.
        resume: go on with a study that was killed.
        stop: set by signal handlers; the study then saves and ends.
        train: what a trial does; tests put something quick in its place.

    Returns:
        The results, which are also in the study's folder with figures and ``best.yaml``.

    Raises:
        ConfigurationError: the space does not fit; nothing was started.
        RunDirectoryError: the study exists, or is another one.
        ResourceError: a trial can never be placed.
        InterruptedRunError: a signal came; ``--resume`` goes on.
        DSFedMedError: every trial failed.
    """
    from dsfedmed_ray.runtime.placement import cluster_room
    from dsfedmed_ray.runtime.ray_engine import open_ray_engine
    from dsfedmed_ray.tuning.figures import draw_study

    stop = stop or StopRequest()
    space = load_space(space_file)
    num_trials = space.budget.num_trials if num_trials is None else num_trials
    num_samples = _num_samples(space, num_trials)
    untouched = check_space(space, overrides)
    folder = StudyFolder(study.absolute())
    settings = study_settings(space, overrides, num_trials)
    check_study(folder, settings, resume)
    split = untouched.split.apply(untouched.data.build())
    check_models(untouched, split)
    num_clients = split.num_clients
    running = _Study(
        space=space,
        folder=folder,
        plan=TrialPlan(
            folder=folder.trials,
            store=untouched.store_dir.absolute(),
            stage=space.stage,
            train=train,
        ),
        overrides=tuple(overrides),
        num_samples=num_samples,
        stream=stream,
        stop=stop,
    )
    opened = open_ray_engine(
        untouched.runtime,
        num_clients,
        lambda _: None,
        uses_foundation=untouched.method.uses_foundation,
    )
    with _ray_tune_settings(), opened:
        room = cluster_room(untouched.runtime.autoscaling)
        bundles = trial_bundles(space.trial, untouched.runtime, num_clients, room)
        # Made last: what the user or the cluster refuses leaves nothing behind.
        write_json(folder.settings, settings)
        baseline = running.run_baseline()
        trials = running.sweep(bundles)
    if stop.signal_number is not None:
        raise InterruptedRunError(stop.signal_number, folder.resume_hint)
    result = StudyResult(metric=space.metric, baseline=baseline, trials=trials)
    write_results(result, folder.results)
    require_a_score(result)
    write_best(result, folder.best)
    draw_study(result, space, folder.figures)
    return result


def _num_samples(space: TuneSpace, num_trials: int) -> int:
    """Draws for each point of the grid.

    Raises:
        ConfigurationError: the trials do not fill the grid evenly.
    """
    if num_trials < 1:
        raise ConfigurationError(f"--num-trials is {num_trials}; at least 1")
    if num_trials % space.grid_size:
        raise ConfigurationError(
            f"{num_trials} trials do not fill the grid of {space.source}, which has "
            f"{space.grid_size} points; give --num-trials a multiple of {space.grid_size}"
        )
    return num_trials // space.grid_size


@dataclass(frozen=True, kw_only=True)
class _Study:
    """A study that is under way."""

    space: TuneSpace
    folder: StudyFolder
    plan: TrialPlan
    overrides: tuple[str, ...]
    num_samples: int
    stream: TextIO
    stop: StopRequest

    def run_baseline(self) -> TrialResult:
        """Runs the untouched configuration here, with the runtime of the command line."""
        reports: list[dict[str, Any]] = []
        run_trial(
            self.plan, BASELINE, self.overrides, reports.append, log=self.stream, stop=self.stop
        )
        return trial_result(
            BASELINE,
            {},
            self.overrides,
            reports[-1],
            metric=self.space.metric,
            status="finished",
        )

    def sweep(self, bundles: list[dict[str, float]]) -> tuple[TrialResult, ...]:
        """Runs the trials, or those that a killed sweep left."""
        from ray import tune as ray_tune

        from dsfedmed_ray.tuning.sweep import Sweep, listening

        trainable = ray_tune.with_resources(
            _trainable(self.plan, (*self.space.trial.overrides, *self.overrides)),
            ray_tune.PlacementGroupFactory(bundles),
        )
        state = str(self.folder.ray_tune)
        if ray_tune.Tuner.can_restore(state):
            tuner = ray_tune.Tuner.restore(state, trainable=trainable, resume_errored=True)
        else:
            tuner = self._new_tuner(trainable)
        note = LineProgress(self.stream).note
        sweep = Sweep(self.overrides, self.space.metric, note, self.stop)
        with listening(sweep):
            tuner.fit()
        return sweep.results

    def _new_tuner(self, trainable: Any) -> "Tuner":
        from ray import tune as ray_tune

        from dsfedmed_ray.tuning.sweep import SweepCallback

        return ray_tune.Tuner(
            trainable,
            param_space={path: found.domain() for path, found in self.space.space.items()},
            tune_config=ray_tune.TuneConfig(
                metric=self.space.metric,
                mode=self.space.mode,
                num_samples=self.num_samples,
                search_alg=_search(self.space),
                scheduler=_scheduler(self.space, self.plan.folder),
                time_budget_s=self.space.budget.seconds,
                reuse_actors=True,  # a worker imports torch and the models once
            ),
            run_config=ray_tune.RunConfig(
                name=self.folder.ray_tune.name,
                storage_path=str(self.folder.root),
                callbacks=[SweepCallback()],
                verbose=0,
            ),
        )


def _trainable(plan: TrialPlan, base: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    def trial(config: dict[str, Any]) -> None:
        from ray import tune as ray_tune

        name = ray_tune.get_context().get_trial_id()
        plan.folder.mkdir(parents=True, exist_ok=True)
        with (plan.folder / f"{name}.log").open("a", encoding="utf-8") as log:
            run_trial(plan, name, [*base, *overrides_of(config)], ray_tune.report, log=log)

    return trial


def _search(space: TuneSpace) -> Any:
    if space.search == "optuna":
        from ray.tune.search.optuna import OptunaSearch

        return OptunaSearch(seed=SEARCH_SEED)
    from ray.tune.search.basic_variant import BasicVariantGenerator

    return BasicVariantGenerator(random_state=SEARCH_SEED)


def _scheduler(space: TuneSpace, trials: Path) -> Any:
    from ray.tune.schedulers import FIFOScheduler

    from dsfedmed_ray.tuning.asha import RememberingAsha

    if space.scheduler == "fifo":
        return FIFOScheduler()
    return RememberingAsha(
        trials,
        space.stage,
        time_attr="epoch",
        max_t=MAX_EPOCHS,
        grace_period=space.asha.grace_epochs,
        reduction_factor=space.asha.reduction_factor,
    )


@contextmanager
def _ray_tune_settings() -> Iterator[None]:
    """Ray Tune reads these from the environment; its remarks repeat what our lines say."""
    os.environ.update(
        {
            "RAY_AIR_NEW_OUTPUT": "0",
            "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of overrides stay what they are
            "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
            "TUNE_DISABLE_SIGINT_HANDLER": "1",
            "TUNE_GLOBAL_CHECKPOINT_S": "2",
            "TUNE_WARN_THRESHOLD_S": "60",
        }
    )
    logger = logging.getLogger("ray.tune")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
