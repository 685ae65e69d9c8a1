"""``seconds = a + b * clients / parallel + c * bytes``: a round's time, fitted and predicted.

``parallel`` counts GPUs where points have any, else workers. ``a`` is what a round costs however
small, ``b`` a client's time on one of them, ``c`` the driver's time a byte: what one process does
for every client, and no worker can share.

``c`` is the slope of the driver's processor time over bytes, which other programs hardly move;
fitted to wall time it would take in all that workers on one machine cost each other, and predict it
of machines that share nothing. ``a`` and ``b`` are fitted to what is left of the wall time of each
point's fastest round: other programs only ever add, so the fastest round is the nearest to what the
machinery itself takes. Coefficients are not negative, and relative errors count, so that a round
of a second says as much as one of an hour.

A model is worth what it says about points that it has not seen: each grid point is predicted by a
model of all the others, and the errors of these predictions are the model's stated error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from dsfedmed_ray.scaling.estimates import PointRow
from dsfedmed_ray.scaling.grid import GridPoint

MIN_POINTS = 3
"""Points that a model of two terms needs, so that one may be held out."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A prediction of a grid point from the others.

    Attributes:
        point: the setting.
        measured_seconds: of the fastest round.
        predicted_seconds: by a model that has not seen it.
    """

    point: GridPoint
    measured_seconds: float
    predicted_seconds: float

    @property
    def error_fraction(self) -> float:
        """Absolute error, relative to what was measured."""
        return abs(self.predicted_seconds / self.measured_seconds - 1.0)


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """A fitted model.

    Attributes:
        a_seconds: of a round, whatever its size.
        b_seconds_per_client: of one client on one worker or GPU.
        c_seconds_per_byte: on the wire, of the driver; 0 where the grid's bytes do not vary.
        bytes_per_client: on the wire a round.
        on_gpus: whether the points computed on GPUs.
        max_parallel: the most workers, or GPUs, of a point.
        max_clients: the most clients of a point.
        held_out: each point predicted from the others.
    """

    a_seconds: float
    b_seconds_per_client: float
    c_seconds_per_byte: float
    bytes_per_client: float
    on_gpus: bool
    max_parallel: int
    max_clients: int
    held_out: Sequence[HeldOut]

    @property
    def median_error(self) -> float:
        """Median error on held-out points, a fraction."""
        return median(item.error_fraction for item in self.held_out)

    @property
    def worst_error(self) -> float:
        """Largest error on held-out points, a fraction."""
        return max(item.error_fraction for item in self.held_out)

    def predict(self, clients: int, parallel: int) -> float:
        """Seconds of a round.

        Args:
            clients: of the round.
            parallel: workers, or GPUs.
        """
        return self._serial(clients) + self.b_seconds_per_client * clients / parallel

    def serial_share(self, clients: int, parallel: int) -> float:
        """The fraction of a round that more workers would not shorten."""
        return self._serial(clients) / self.predict(clients, parallel)

    def _serial(self, clients: int) -> float:
        return self.a_seconds + self.c_seconds_per_byte * self.bytes_per_client * clients


def fit_cost_model(rows: Sequence[PointRow], num_cpus: int) -> CostModel | str:
    """Fits a study.

    Args:
        rows: the grid points; workers beyond the CPUs share them and are left out.
        num_cpus: of the machine or cluster that was measured.

    Returns:
        The model, or one line that says why there is none.
    """
    on_gpus = any(row.point.gpus for row in rows)
    fitted = [
        row
        for row in rows
        if (row.point.gpus > 0) == on_gpus and (on_gpus or row.point.workers <= num_cpus)
    ]
    if len(fitted) < MIN_POINTS:
        return f"{len(fitted)} points can be fitted, a cost model needs {MIN_POINTS}"
    if len({row.point.clients / row.point.parallel for row in fitted}) < 2:
        return "clients a worker do not vary, so nothing can be fitted to them"
    a, b, c = _fit(fitted)
    held_out = []
    for row in fitted:
        others = [other for other in fitted if other is not row]
        if len({other.point.clients / other.point.parallel for other in others}) < 2:
            continue  # without this point the others no longer tell the terms apart
        features = np.array([1.0, row.point.clients / row.point.parallel, row.round_bytes])
        held_out.append(
            HeldOut(
                point=row.point,
                measured_seconds=row.fastest_seconds,
                predicted_seconds=float(features @ _fit(others)),
            )
        )
    return CostModel(
        a_seconds=float(a),
        b_seconds_per_client=float(b),
        c_seconds_per_byte=float(c),
        bytes_per_client=median(row.round_bytes / row.point.clients for row in fitted),
        on_gpus=on_gpus,
        max_parallel=max(row.point.parallel for row in fitted),
        max_clients=max(row.point.clients for row in fitted),
        held_out=held_out,
    )


def _fit(rows: Sequence[PointRow]) -> np.ndarray:
    """``a``, ``b`` and ``c``."""
    num_bytes = np.array([row.round_bytes for row in rows])
    driver = np.array([row.driver_seconds.mean for row in rows])
    c = _line(num_bytes, driver, driver)[1] if len(set(num_bytes)) > 1 else 0.0
    seconds = np.array([row.fastest_seconds for row in rows])
    share = np.array([row.point.clients / row.point.parallel for row in rows])
    a, b = _line(share, np.maximum(seconds - c * num_bytes, 0.0), seconds)
    return np.array([a, b, c])


def _line(x: np.ndarray, y: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Intercept and slope, neither negative, by least squares of ``(prediction - y) / scale``."""
    from scipy.optimize import nnls

    unit = x.max()  # bytes are of the order of 1e8, the intercept of 1
    features = np.stack([np.ones_like(x, dtype=float), x / unit], axis=1)
    solution, _ = nnls(features / scale[:, None], y / scale)
    return np.asarray(solution / [1.0, unit])
