"""Whether actors can have what they ask of the cluster.

A demand is a promise: what can never be met is an error at once, what is not placed within
:data:`PLACEMENT_SECONDS` is an error that names the request and what is free.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.runtime.demand import Demand

if TYPE_CHECKING:
    from ray.data import DataContext

PLACEMENT_SECONDS = 30.0


class Placement:
    """Reserved resources for a group of actors; released by :meth:`release`.

    Inside a trial of a study nothing more is reserved: the trial holds one placement group for all
    its actors, and Ray starts them in it.

    Args:
        what: names the group in messages, for example ``"clients"``.
        demands: one an actor, ``auto`` resolved.
        spread: over the cluster's nodes, where it has several.

    Raises:
        ResourceError: the cluster can never hold a demand, or did not within
            :data:`PLACEMENT_SECONDS`.
    """

    def __init__(self, what: str, demands: Sequence[Demand], *, spread: bool = False) -> None:
        require_possible(what, demands)
        self._demands = list(demands)
        bundles = [demand.bundle() for demand in demands]
        self._bundle_of: dict[int, int] = {}
        for index, bundle in enumerate(bundles):
            if bundle:
                self._bundle_of[index] = len(self._bundle_of)
        wanted = [bundle for bundle in bundles if bundle]
        inside_a_trial = get_current_placement_group() is not None
        self._group: PlacementGroup | None = (
            _reserve(what, wanted, spread) if wanted and not inside_a_trial else None
        )
        self._spread = spread and not inside_a_trial

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
        elif self._spread:
            options |= _on_node(index)
        return options

    def release(self) -> None:
        """Gives the resources back."""
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None


def _on_node(index: int) -> dict[str, Any]:
    """Gives a node to what reserves nothing, which Ray would put on one and the same node.

    Nodes are taken in turn, each as often as it has CPUs. If the node has left, any will do. Ray
    heeds a soft node affinity only of actors that ask for resources, so the node's label says it.
    """
    cpus = {
        node["NodeID"]: node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]
    }
    most = int(max(cpus.values()))
    turns = [node for turn in range(most) for node in sorted(cpus) if cpus[node] > turn]
    if len(cpus) < 2 or not turns:
        return {}
    return {
        "label_selector": {"ray.io/node-id": turns[index % len(turns)]},
        "fallback_strategy": [{"label_selector": {}}],
    }


def keep_data_inside(context: "DataContext") -> None:
    """Keeps a Ray Dataset's tasks in the placement group of the trial that they belong to, if any.

    Left alone, they look for CPUs outside of it: where trials hold all CPUs, for ever.
    """
    group = get_current_placement_group()
    if group is None:
        return
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    with warnings.catch_warnings():
        # Ray announces the end of these settings for 2027, and has no other for this purpose yet.
        warnings.simplefilter("ignore")
        context.scheduling_strategy = strategy
        context.scheduling_strategy_large_args = strategy


def require_possible(
    what: str, demands: Sequence[Demand], lower: str = "runtime.resources or runtime.num_workers"
) -> None:
    """Checks that the cluster, empty, could hold a group of actors.

    Args:
        what: names the group in messages.
        demands: one an actor, ``auto`` resolved.
        lower: the settings that ask for less.

    Raises:
        ResourceError: it never can.
    """
    bundles = [demand.bundle() for demand in demands]
    total: dict[str, float] = {}
    for bundle in bundles:
        for name, amount in bundle.items():
            total[name] = total.get(name, 0.0) + amount
    have = ray.cluster_resources()
    for name, amount in total.items():
        if amount > have.get(name, 0.0) + 1e-6:
            raise ResourceError(
                f"{what} ask for {amount:g} {name} in all ({len(bundles)} actors), the cluster has "
                f"{have.get(name, 0.0):g}; lower {lower}, or add nodes"
            )


def _reserve(what: str, bundles: list[dict[str, float]], spread: bool) -> PlacementGroup:
    group = placement_group(bundles, strategy="SPREAD" if spread else "PACK")
    if not group.wait(PLACEMENT_SECONDS):
        remove_placement_group(group)
        names = {name for bundle in bundles for name in bundle}
        available = ray.available_resources()
        free = {name: f"{available.get(name, 0.0):g}" for name in sorted(names)}
        raise ResourceError(
            f"{what} asked for {bundles[0]} x {len(bundles)} and were not placed within "
            f"{PLACEMENT_SECONDS:g} s; free now: {free}; other jobs hold the rest"
        )
    return group
