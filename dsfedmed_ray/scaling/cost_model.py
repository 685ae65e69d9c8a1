"""``seconds = a + b * clients / parallel + c * bytes``: a round's time, fitted and predicted.

``parallel`` counts GPUs where points have any, else workers. ``a`` is what a round costs however
small, ``b`` a client's time on one of them, ``c`` the driver's time a byte. Coefficients are not
negative, and relative errors count, so that a round of a second says as much as one of an hour.

A model is worth what it says about points that it has not seen: each grid point is predicted by a
model of all the others, and the errors of these predictions are the model's stated error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.scaling.estimates import PointRow
from dsfedmed_ray.scaling.grid import GridPoint

MIN_POINTS = 3
"""Points that a model of two terms needs, so that one may be held out."""

TERMS = ("a_seconds", "b_seconds_per_client", "c_seconds_per_byte")


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A prediction of a grid point from the others.

    Attributes:
        point: the setting.
        measured_seconds: of a round.
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
        c_seconds_per_byte: on the wire; None where the grid cannot tell it from ``b``.
        bytes_per_client: on the wire a round.
        on_gpus: whether the points computed on GPUs.
        max_parallel: the most workers, or GPUs, of a point.
        max_clients: the most clients of a point.
        held_out: each point predicted from the others.
    """

    a_seconds: float
    b_seconds_per_client: float
    c_seconds_per_byte: float | None
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
        wire = (self.c_seconds_per_byte or 0.0) * self.bytes_per_client * clients
        return self.a_seconds + self.b_seconds_per_client * clients / parallel + wire


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
    num_terms = _num_terms(fitted)
    coefficients = _fit(fitted, num_terms)
    held_out = []
    for row in fitted:
        others = [other for other in fitted if other is not row]
        if _rank(others, num_terms) < num_terms:
            continue  # without this point the others no longer tell the terms apart
        predicted = _features([row], num_terms)[0] @ _fit(others, num_terms)
        held_out.append(
            HeldOut(
                point=row.point,
                measured_seconds=row.seconds.mean,
                predicted_seconds=float(predicted),
            )
        )
    return CostModel(
        a_seconds=float(coefficients[0]),
        b_seconds_per_client=float(coefficients[1]),
        c_seconds_per_byte=float(coefficients[2]) if num_terms == len(TERMS) else None,
        bytes_per_client=median(row.round_bytes / row.point.clients for row in fitted),
        on_gpus=on_gpus,
        max_parallel=max(row.point.parallel for row in fitted),
        max_clients=max(row.point.clients for row in fitted),
        held_out=held_out,
    )


def predict(model: CostModel, request: Sequence[str]) -> str:
    """A prediction in words, with its stated error.

    Args:
        model: a study's.
        request: ``clients=N`` and ``workers=N`` or ``gpus=N``.

    Raises:
        ConfigurationError: the request is not that, or the study measured the other kind.
    """
    wanted = _parsed(request)
    kind = "gpus" if model.on_gpus else "workers"
    if wanted.get("gpus") and not model.on_gpus:
        raise ConfigurationError(
            f"--predict gpus={wanted['gpus']}: the study has no point with GPUs; give workers=N, "
            "or run one with scaling.gpus=[1]"
        )
    if "clients" not in wanted or kind not in wanted:
        raise ConfigurationError(
            f"--predict {' '.join(request)}: this study predicts from clients=N {kind}=N; give both"
        )
    clients, parallel = wanted["clients"], wanted[kind]
    if min(clients, parallel) < 1:
        raise ConfigurationError(f"--predict {' '.join(request)}: numbers are 1 or more")
    seconds = model.predict(clients, parallel)
    beyond = clients > model.max_clients or parallel > model.max_parallel
    lines = [
        f"{seconds:.3g} s a round, {clients / seconds:.4g} clients/s "
        f"({clients} clients on {parallel} {kind}, one round of local training each)",
        f"error on held-out grid points: median {model.median_error:.1%}, "
        f"worst {model.worst_error:.1%} of {len(model.held_out)}",
    ]
    if beyond:
        lines.append(
            f"beyond what was measured (at most {model.max_clients} clients, "
            f"{model.max_parallel} {kind}): the error there is not known"
        )
    return "\n".join(lines)


def _parsed(request: Sequence[str]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for item in request:
        name, _, number = item.partition("=")
        if name not in ("clients", "workers", "gpus") or not number.isdecimal():
            raise ConfigurationError(
                f"--predict {item}: allowed are clients=N, workers=N and gpus=N"
            )
        wanted[name] = int(number)
    return wanted


def _features(rows: Sequence[PointRow], num_terms: int) -> np.ndarray:
    every = [[1.0, row.point.clients / row.point.parallel, row.round_bytes] for row in rows]
    return np.array(every)[:, :num_terms]


def _num_terms(rows: Sequence[PointRow]) -> int:
    """Three where three can be told apart with any one point held out, else two."""
    most = len(TERMS)
    enough = all(_rank([other for other in rows if other is not row], most) == most for row in rows)
    return most if enough and len(rows) > most else most - 1


def _rank(rows: Sequence[PointRow], num_terms: int) -> int:
    features = _features(rows, num_terms)
    return int(np.linalg.matrix_rank(features / np.abs(features).max(axis=0)))


def _fit(rows: Sequence[PointRow], num_terms: int) -> np.ndarray:
    from scipy.optimize import nnls

    seconds = np.array([row.seconds.mean for row in rows])
    features = _features(rows, num_terms)
    scale = features.max(axis=0)  # bytes are of the order of 1e8, the constant is 1
    solution, _ = nnls(features / scale / seconds[:, None], np.ones(len(rows)))
    return np.asarray(solution / scale)
