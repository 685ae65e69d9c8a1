"""What an actor asks of Ray. Numbers only: nothing here imports Ray."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from dsfedmed_ray.errors import ConfigurationError, ResourceError


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Resources of one actor, in Ray's units.

    Attributes:
        num_cpus: logical CPUs; 0 for actors that outlive a stage, which set their own threads.
        num_gpus: a GPU or a fraction of one; ``auto`` is a fair fraction where the cluster has
            GPUs and 0 elsewhere; a number is a demand.
        resources: custom resources by name, for example ``{"foundation": 1}``.
    """

    num_cpus: float = 0.0
    num_gpus: float | Literal["auto"] = "auto"
    resources: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        amounts = {"num_cpus": self.num_cpus, **self.resources}
        if self.num_gpus != "auto":
            amounts["num_gpus"] = self.num_gpus
        for name, amount in amounts.items():
            if not isinstance(amount, int | float) or amount < 0:
                raise ConfigurationError(
                    f"runtime.resources: {name} is {amount!r}; allowed: 0 or more"
                    + (", or 'auto'" if name == "num_gpus" else "")
                )
        if self.num_gpus != "auto" and self.num_gpus > 1 and self.num_gpus % 1:
            raise ConfigurationError(
                f"runtime.resources: num_gpus is {self.num_gpus:g}; allowed: a fraction up to 1, "
                "or whole GPUs"
            )

    def bundle(self) -> dict[str, float]:
        """The demand as a Ray bundle, zeros left out."""
        if self.num_gpus == "auto":
            raise ValueError("resolve 'auto' first")
        wanted = {"CPU": self.num_cpus, "GPU": float(self.num_gpus), **self.resources}
        return {name: amount for name, amount in wanted.items() if amount > 0}


def resolve_gpu_fractions(
    foundation: Demand,
    client: Demand,
    num_clients: int,
    num_cluster_gpus: float,
    num_foundation_workers: int = 1,
    *,
    uses_foundation: bool = True,
) -> tuple[Demand, Demand]:
    """Replaces ``auto`` by numbers.

    Without a foundation model the clients share all GPUs. With one, on one GPU its actor takes
    half and the clients share the other half. On more, it has a GPU of its own, as has each worker
    of a shared adaptation; the clients share the rest.

    Raises:
        ResourceError: workers of a shared adaptation would not have a whole GPU each, or nothing
            would be left to the clients.
    """
    if num_foundation_workers > 1:
        _check_whole_gpus(foundation, client, num_cluster_gpus, num_foundation_workers)
    if num_cluster_gpus <= 0:
        share_foundation = share_client = 0.0
    elif not uses_foundation:
        share_foundation = 0.0
        share_client = min(1.0, _rounded_down(num_cluster_gpus / num_clients))
    elif num_cluster_gpus <= 1:
        share_foundation = 0.5 * num_cluster_gpus
        share_client = _rounded_down(0.5 * num_cluster_gpus / num_clients)
    else:
        share_foundation = 1.0
        rest = num_cluster_gpus - num_foundation_workers
        share_client = min(1.0, _rounded_down(rest / num_clients))
    return _with_gpus(foundation, share_foundation), _with_gpus(client, share_client)


def resolve_generators(
    generator: Demand,
    num_generators: int,
    foundation: Demand,
    clients: Sequence[Demand],
    num_cluster_gpus: float,
) -> list[Demand]:
    """What each generator actor of stage 2 asks for.

    Generators end before the foundation model starts: ``auto`` gives each of them its share of the
    GPUs, and there are as many as find room beside the clients, one at least.

    Args:
        generator: of one actor.
        num_generators: at most so many; where nothing is shared, or a number is asked for, all.
        foundation: with ``auto`` resolved.
        clients: with ``auto`` resolved; they stay in their places meanwhile.
        num_cluster_gpus: in all.
    """
    if generator.num_gpus != "auto":
        return [generator] * num_generators
    share = float(foundation.num_gpus) if num_cluster_gpus > 0 else 0.0
    if share > 0:
        free = num_cluster_gpus - sum(float(client.num_gpus) for client in clients)
        num_generators = max(1, min(num_generators, int((free + 1e-6) / share)))
    return [_with_gpus(generator, share)] * num_generators


def _check_whole_gpus(
    foundation: Demand, client: Demand, num_cluster_gpus: float, num_workers: int
) -> None:
    gpus = foundation.num_gpus
    if gpus == "auto" and num_cluster_gpus > 0:
        needed = num_workers + (1 if client.num_gpus == "auto" else 0)
        if num_cluster_gpus < needed:
            raise ResourceError(
                f"foundation.num_workers={num_workers} needs {num_workers} GPUs and leaves "
                f"{num_cluster_gpus - num_workers:g} of {num_cluster_gpus:g} to the clients; lower "
                "it, or set runtime.resources.foundation.num_gpus or "
                "runtime.resources.client.num_gpus to 0"
            )
    if gpus != "auto" and gpus % 1:
        raise ResourceError(
            f"runtime.resources.foundation.num_gpus is {gpus:g}, and the workers of "
            f"foundation.num_workers={num_workers} cannot share a GPU; use whole GPUs or 0"
        )


def _rounded_down(fraction: float) -> float:
    # Ray counts in steps of 1e-4; rounding up would ask for more than there is.
    return int(fraction * 10_000) / 10_000


def _with_gpus(demand: Demand, share: float) -> Demand:
    if demand.num_gpus != "auto":
        return demand
    return Demand(num_cpus=demand.num_cpus, num_gpus=share, resources=demand.resources)
