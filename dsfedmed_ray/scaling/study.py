"""A scaling study: every grid point, several times, each in a process of its own; then results."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsfedmed_ray.configuration import build_experiment, build_part, compose, conf_dir
from dsfedmed_ray.errors import ConfigurationError, InterruptedRunError, ResourceError
from dsfedmed_ray.experiment import (
    Experiment,
    keep_configuration,
    publish_run,
    run_directory,
)
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.progress import Progress
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.run_directory import write_json
from dsfedmed_ray.scaling.cost_model import fit_cost_model
from dsfedmed_ray.scaling.estimates import rows_of
from dsfedmed_ray.scaling.figures import draw_study
from dsfedmed_ray.scaling.fresh_process import Measure, measure_apart
from dsfedmed_ray.scaling.grid import ScalingGrid
from dsfedmed_ray.scaling.measurement import Measurement, Task
from dsfedmed_ray.scaling.results import StudyResult, write_results

if TYPE_CHECKING:
    from omegaconf import DictConfig

PART = "scaling"


@dataclass(frozen=True)
class StudyFolder:
    """The paths of a study, in a run directory of its own."""

    root: Path

    @property
    def measurements(self) -> Path:
        """One file a run, whole or absent."""
        return self.root / "measurements"

    @property
    def running(self) -> Path:
        """The files of the run that is measured now."""
        return self.root / "running"

    @property
    def results(self) -> Path:
        """Every grid point and the cost model; written when all are measured."""
        return self.root / "results.json"

    @property
    def table(self) -> Path:
        """The grid points for a spreadsheet."""
        return self.root / "results.csv"

    @property
    def figures(self) -> Path:
        """Pictures."""
        return self.root / "figures"


def scale(
    overrides: Sequence[str],
    progress: Progress,
    stop: StopRequest,
    *,
    measure: Measure = measure_apart,
) -> tuple[StudyResult, Path]:
    """Runs a study to its end.

    Args:
        overrides: as for ``dsfedmed run``, with an ``experiment`` that has a grid.
        progress: shows the rounds of all runs.
        stop: set by signal handlers; finished measurements stay.
        measure: runs one task; tests put something quick in its place.

    Returns:
        The results, and the study's folder, where they are with their figures.

    Raises:
        UserError: something given cannot be used; nothing is left behind.
        InterruptedRunError: a signal came; ``resume=true run.dir=...`` goes on.
    """
    config = compose(overrides)
    grid = _grid(config)
    experiment = build_experiment(config)
    rounds = _check(grid, experiment, overrides)
    directory = run_directory(experiment, grid.name)
    keep_configuration(experiment, directory)
    folder = StudyFolder(directory.root.absolute())
    progress.note(f"run directory: {directory.root}")
    tasks = [
        Task(
            point=point,
            repeat=repeat,
            overrides=tuple(overrides),
            seed=experiment.seed,
            warmup_rounds=grid.warmup_rounds,
            folder=folder.running,
        )
        # Repeats are the outer loop: a slow minute of the machine falls on all points alike.
        for repeat in range(grid.repeats)
        for point in grid.points()
    ]
    with progress.stage(PART, len(tasks) * rounds):
        measurements = [
            _measured(task, folder, _Counting(progress, first, len(tasks) * rounds), stop, measure)
            for first, task in zip(range(0, len(tasks) * rounds, rounds), tasks, strict=True)
        ]
    rows = rows_of(measurements)
    num_cpus = min(measurement.num_cpus for measurement in measurements)
    result = StudyResult(
        name=grid.name, num_cpus=num_cpus, rows=rows, cost_model=fit_cost_model(rows, num_cpus)
    )
    write_results(result, folder.results, folder.table)
    draw_study(result, folder.figures)
    publish_run(experiment, directory)
    return result, folder.root


class _Counting:
    """Reports a run's rounds as rounds of the study."""

    def __init__(self, progress: Progress, first: int, total: int) -> None:
        self.progress = progress
        self._first = first
        self._total = total

    def __call__(self, record: ProgressRecord) -> None:
        index = self._first + record.index
        self.progress.advance(replace(record, stage=PART, index=index, total=self._total))


def _measured(
    task: Task, folder: StudyFolder, counting: _Counting, stop: StopRequest, measure: Measure
) -> Measurement:
    """A measurement, found again where an interrupted study has finished it."""
    file = folder.measurements / f"{task.point.label}-repeat-{task.repeat}.json"
    if file.exists():
        return Measurement.of(json.loads(file.read_text(encoding="utf-8")))
    counting.progress.note(f"{task.point.label}  repeat {task.repeat + 1}")
    try:
        measurement = measure(task, counting, stop)
    except InterruptedRunError as error:
        hint = f"go on with: the same command, resume=true run.dir={folder.root}"
        raise InterruptedRunError(stop.signal_number or error.signal_number, hint) from error
    write_json(file, measurement.content())
    return measurement


def _grid(config: "DictConfig") -> ScalingGrid:
    if PART not in config:
        names = sorted(path.stem for path in (conf_dir() / "experiment").glob("scale_*.yaml"))
        raise ConfigurationError(
            f"this experiment has no scaling grid; use experiment={' | '.join(names)}"
        )
    grid: ScalingGrid = build_part(config, PART)
    return grid


def _check(grid: ScalingGrid, experiment: Experiment, overrides: Sequence[str]) -> int:
    """Builds every point before the first one runs; gives the rounds of a run.

    Raises:
        ConfigurationError: a point cannot be built, or no round would be measured.
        ResourceError: more GPUs are asked for than this machine has.
    """
    schedule = getattr(experiment.method, "federated", None)
    if schedule is None:
        raise ConfigurationError(
            f"method {experiment.method.name} has no method.federated, so no rounds to measure; "
            "use method=fedavg"
        )
    rounds = int(schedule.rounds)
    if rounds <= grid.warmup_rounds:
        raise ConfigurationError(
            f"schedule.rounds is {rounds} and scaling.warmup_rounds {grid.warmup_rounds}, which "
            "leaves no round to measure; raise schedule.rounds"
        )
    import torch

    most = max(grid.gpus)
    if experiment.runtime.address is None and most > torch.cuda.device_count():
        raise ResourceError(
            f"scaling.gpus holds {most}, this machine has {torch.cuda.device_count()} GPUs; lower "
            "scaling.gpus, or join a cluster with runtime=cluster"
        )
    for point in grid.points():
        build_experiment(compose([*overrides, *point.overrides()]))
    return rounds
