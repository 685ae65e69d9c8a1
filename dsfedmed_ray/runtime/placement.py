"""What actors ask of the cluster, and whether they can have it.

A demand is a promise: what can never be met is an error at once, what is not placed within
:data:`PLACEMENT_SECONDS` is an error that names the request and what is free.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dsfedmed_ray.errors import ConfigurationError, ResourceError

PLACEMENT_SECONDS = 30.0


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

    def bundle(self) -> dict[str, float]:
        """The demand as a Ray bundle, zeros left out."""
        if self.num_gpus == "auto":
            raise ValueError("resolve 'auto' first")
        wanted = {"CPU": self.num_cpus, "GPU": float(self.num_gpus), **self.resources}
        return {name: amount for name, amount in wanted.items() if amount > 0}


def resolve_gpu_fractions(
    foundation: Demand, client: Demand, num_clients: int, num_cluster_gpus: float
) -> tuple[Demand, Demand]:
    """Replaces ``auto`` by numbers.

    On one GPU the foundation actor takes half and the clients share the other half; on more, the
    foundation actor has a GPU of its own and the clients share the rest.
    """
    if num_cluster_gpus <= 0:
        share_foundation = share_client = 0.0
    elif num_cluster_gpus <= 1:
        share_foundation = 0.5 * num_cluster_gpus
        share_client = _rounded_down(0.5 * num_cluster_gpus / num_clients)
    else:
        share_foundation = 1.0
        share_client = min(1.0, _rounded_down((num_cluster_gpus - 1.0) / num_clients))
    return _with_gpus(foundation, share_foundation), _with_gpus(client, share_client)


def _rounded_down(fraction: float) -> float:
    # Ray counts in steps of 1e-4; rounding up would ask for more than there is.
    return int(fraction * 10_000) / 10_000


def _with_gpus(demand: Demand, share: float) -> Demand:
    if demand.num_gpus != "auto":
        return demand
    return Demand(num_cpus=demand.num_cpus, num_gpus=share, resources=demand.resources)


class Placement:
    """Reserved resources for a group of actors; released by :meth:`release`.

    Args:
        what: names the group in messages, for example ``"clients"``.
        demands: one an actor, ``auto`` resolved.

    Raises:
        ResourceError: the cluster can never hold a demand, or did not within
            :data:`PLACEMENT_SECONDS`.
    """

    def __init__(self, what: str, demands: Sequence[Demand]) -> None:
        self._demands = list(demands)
        bundles = [demand.bundle() for demand in demands]
        self._bundle_of: dict[int, int] = {}
        for index, bundle in enumerate(bundles):
            if bundle:
                self._bundle_of[index] = len(self._bundle_of)
        wanted = [bundle for bundle in bundles if bundle]
        self._group: PlacementGroup | None = _reserve(what, wanted) if wanted else None

    def options(self, index: int) -> dict[str, Any]:
        """Ray options of the actor with this index."""
        demand = self._demands[index]
        options: dict[str, Any] = {
            "num_cpus": demand.num_cpus,
            "num_gpus": demand.num_gpus,
            "resources": dict(demand.resources),
        }
        if index in self._bundle_of and self._group is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                placement_group=self._group, placement_group_bundle_index=self._bundle_of[index]
            )
        return options

    def release(self) -> None:
        """Gives the resources back."""
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None


def _reserve(what: str, bundles: list[dict[str, float]]) -> PlacementGroup:
    total: dict[str, float] = {}
    for bundle in bundles:
        for name, amount in bundle.items():
            total[name] = total.get(name, 0.0) + amount
    have = ray.cluster_resources()
    for name, amount in total.items():
        if amount > have.get(name, 0.0) + 1e-6:
            raise ResourceError(
                f"{what} ask for {amount:g} {name} in all ({len(bundles)} actors), the cluster has "
                f"{have.get(name, 0.0):g}; lower runtime.resources or runtime.num_workers, or add "
                "nodes"
            )
    group = placement_group(bundles, strategy="PACK")
    if not group.wait(PLACEMENT_SECONDS):
        remove_placement_group(group)
        free = {name: f"{ray.available_resources().get(name, 0.0):g}" for name in total}
        raise ResourceError(
            f"{what} asked for {bundles[0]} x {len(bundles)} and were not placed within "
            f"{PLACEMENT_SECONDS:g} s; free now: {free}; other jobs hold the rest"
        )
    return group
