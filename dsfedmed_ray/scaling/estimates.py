"""From repeated measurements to one row a grid point, with confidence and efficiency."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dsfedmed_ray.scaling.grid import GridPoint
from dsfedmed_ray.scaling.measurement import Measurement
from dsfedmed_ray.scaling.process_memory import ProcessMemory, largest

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over runs.

    Attributes:
        mean: over the runs.
        half_width: of the 95 % confidence interval; None for a single run.
    """

    mean: float
    half_width: float | None


@dataclass(frozen=True, kw_only=True)
class PointRow:
    """What is known about one grid point.

    Attributes:
        point: the setting.
        num_runs: measurements.
        seconds: wall time of a round: each run's median, over the runs.
        fastest_seconds: wall time of the fastest round of all runs: what a round takes where
            nothing else disturbs it.
        clients_per_second: client-rounds a second.
        driver_seconds: processor time of the driver in a round, likewise.
        round_bytes: bytes on the wire a round, up and down.
        dice: last validation Dice; None where nothing was validated.
        memory: the largest of all runs.
        strong_efficiency: speed-up over the fewest workers with the same clients, divided by the
            workers' ratio; 1 is perfect, None where the grid has nothing to compare with.
        weak_efficiency: seconds with the fewest workers divided by seconds here, at equal clients
            a worker; 1 is perfect.
        simulated_seconds: of a round on the virtual clock, each run's median; None without one.
    """

    point: GridPoint
    num_runs: int
    seconds: Estimate
    fastest_seconds: float
    clients_per_second: Estimate
    driver_seconds: Estimate
    round_bytes: float
    dice: Estimate | None
    memory: ProcessMemory
    strong_efficiency: float | None = None
    weak_efficiency: float | None = None
    simulated_seconds: Estimate | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % confidence interval by Student's t: ``t(0.975, n - 1) * s / sqrt(n)``."""
    if len(values) < 2:
        return Estimate(mean=values[0], half_width=None)
    from scipy.stats import t

    quantile = float(t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1))
    half_width = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean=statistics.fmean(values), half_width=half_width)


def rows_of(measurements: Sequence[Measurement]) -> list[PointRow]:
    """One row a grid point, in the order in which the points first appear."""
    by_point: dict[GridPoint, list[Measurement]] = {}
    for measurement in measurements:
        by_point.setdefault(measurement.point, []).append(measurement)
    rows = [_row(point, runs) for point, runs in by_point.items()]
    return [_with_efficiency(row, rows) for row in rows]


def _row(point: GridPoint, runs: Sequence[Measurement]) -> PointRow:
    dice = [run.dice for run in runs if run.dice is not None]
    simulated = [statistics.median(x) for run in runs if (x := run.simulated_seconds)]
    names = ProcessMemory.__dataclass_fields__
    return PointRow(
        point=point,
        num_runs=len(runs),
        seconds=estimate([run.median_seconds for run in runs]),
        fastest_seconds=min(min(run.round_seconds) for run in runs),
        clients_per_second=estimate([point.clients / run.median_seconds for run in runs]),
        driver_seconds=estimate([statistics.median(run.driver_seconds) for run in runs]),
        round_bytes=statistics.fmean(run.round_bytes for run in runs),
        dice=estimate(dice) if dice else None,
        memory=ProcessMemory(
            **{name: largest(getattr(run.memory, name) for run in runs) for name in names}
        ),
        simulated_seconds=estimate(simulated) if simulated else None,
    )


def _with_efficiency(row: PointRow, rows: Sequence[PointRow]) -> PointRow:
    point = row.point
    others = [
        other
        for other in rows
        if other.point.parallel < point.parallel
        and other.point.population == point.population
        and (other.point.gpus > 0) == (point.gpus > 0)
    ]
    strong = [other for other in others if other.point.clients == point.clients]
    weak = [
        other
        for other in others
        if other.point.clients * point.parallel == point.clients * other.point.parallel
    ]
    return replace(
        row,
        strong_efficiency=_compared(row, strong, per_worker=True),
        weak_efficiency=_compared(row, weak, per_worker=False),
    )


def _compared(row: PointRow, others: Sequence[PointRow], *, per_worker: bool) -> float | None:
    """Seconds of the row with the fewest workers over seconds of this row."""
    if not others:
        return None
    base = min(others, key=_parallel)
    ratio = base.seconds.mean / row.seconds.mean
    return ratio * _parallel(base) / _parallel(row) if per_worker else ratio


def _parallel(row: PointRow) -> int:
    return row.point.parallel
