"""What a fitted cost model says of a larger run, in words, with what is known of its error."""

from collections.abc import Sequence

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.scaling.cost_model import CostModel

PARALLEL = ("workers", "gpus")


def predict(model: CostModel, request: Sequence[str]) -> str:
    """A prediction, its stated error, and everything that it takes for granted.

    Args:
        model: a study's.
        request: ``clients=N`` and one of ``workers=N`` and ``gpus=N``.

    Raises:
        ConfigurationError: the request is not that, or asks for CPU workers of a study on GPUs.
    """
    wanted = _parsed(request)
    kinds = [kind for kind in PARALLEL if kind in wanted]
    if "clients" not in wanted or len(kinds) != 1:
        raise ConfigurationError(
            f"--predict {' '.join(request)}: give clients=N and one of workers=N and gpus=N"
        )
    if min(wanted.values()) < 1:
        raise ConfigurationError(f"--predict {' '.join(request)}: numbers are 1 or more")
    (kind,) = kinds
    if model.on_gpus and kind == "workers":
        raise ConfigurationError(
            f"--predict workers={wanted[kind]}: the study measured GPUs; give gpus=N, or --from a "
            "study of workers"
        )
    clients, parallel = wanted["clients"], wanted[kind]
    seconds = model.predict(clients, parallel)
    lines = [
        f"{seconds:.3g} s a round, {clients / seconds:.4g} clients/s "
        f"({clients} clients on {parallel} {kind}, one round of local training each)",
        f"error on held-out grid points: median {model.median_error:.1%}, "
        f"worst {model.worst_error:.1%} of {len(model.held_out)}",
    ]
    return "\n".join(lines + _taken_for_granted(model, clients, parallel, kind))


def _taken_for_granted(model: CostModel, clients: int, parallel: int, kind: str) -> list[str]:
    measured = "gpus" if model.on_gpus else "workers"
    lines = []
    if kind != measured:
        lines.append(
            "no GPU was measured: each is taken for one of the study's CPU workers; a study with "
            "scaling.gpus=[1] on the hardware in question gives its own time a client"
        )
    if clients > model.max_clients or parallel > model.max_parallel:
        lines.append(
            f"extrapolated from at most {model.max_clients} clients and {model.max_parallel} "
            f"{measured}: time a client, bytes a client and the driver's time a byte are taken to "
            "stay as they are; the error out there is not known"
        )
    serial = model.serial_share(clients, parallel)
    lines.append(f"of the round, {serial:.0%} is one process's work, which no further {kind} share")
    return lines


def _parsed(request: Sequence[str]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for item in request:
        name, _, number = item.partition("=")
        if name not in ("clients", *PARALLEL) or not number.isdecimal():
            raise ConfigurationError(
                f"--predict {item}: allowed are clients=N, workers=N and gpus=N"
            )
        wanted[name] = int(number)
    return wanted
