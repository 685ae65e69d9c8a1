"""Whether actors can have what they ask of the cluster.

A demand is a promise: what can never be met is an error at once, what is not placed within
``runtime.autoscaling.placement_seconds`` is an error that names the request, what is free and who
holds the rest.
"""

import uuid
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.runtime.demand import Demand
from dsfedmed_ray.runtime.room import Autoscaling, Bundle, ClusterRoom, said

if TYPE_CHECKING:
    from ray.data import DataContext

FIXED = Autoscaling()
"""A cluster that does not grow."""


def cluster_room(autoscaling: Autoscaling = FIXED) -> ClusterRoom:
    """The nodes of the connected cluster, and those that may still come.

    Which nodes an autoscaler may start is said by ``runtime.autoscaling``, because Ray 2.60 tells
    no driver: ``ray.cluster_resources()`` counts live nodes, and the record that Ray keeps for this
    purpose (``GlobalState.get_max_resources_from_cluster_config``) is filled neither by
    ``ray up`` nor by KubeRay.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return ClusterRoom(nodes=nodes, to_come=autoscaling.nodes_to_come(nodes))


class Placement:
    """Reserved resources for a group of actors; released by :meth:`release`.

    Inside a trial of a study nothing more is reserved: the trial holds one placement group for all
    its actors, and Ray starts them in it.

    Args:
        what: names the group in messages, for example ``"clients"``.
        demands: one an actor, ``auto`` resolved.
        spread: over the cluster's nodes, where it has several.
        autoscaling: which nodes may come, and how long to wait.

    Raises:
        ResourceError: the cluster can never hold a demand, or did not in time.
    """

    def __init__(
        self,
        what: str,
        demands: Sequence[Demand],
        *,
        spread: bool = False,
        autoscaling: Autoscaling = FIXED,
    ) -> None:
        cluster_room(autoscaling).require({what: [demand.bundle() for demand in demands]})
        self._demands = list(demands)
        bundles = [demand.bundle() for demand in demands]
        self._bundle_of: dict[int, int] = {}
        for index, bundle in enumerate(bundles):
            if bundle:
                self._bundle_of[index] = len(self._bundle_of)
        wanted = [bundle for bundle in bundles if bundle]
        inside_a_trial = get_current_placement_group() is not None
        self._group: PlacementGroup | None = (
            _reserve(what, wanted, spread, autoscaling.seconds)
            if wanted and not inside_a_trial
            else None
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


def _reserve(
    what: str, bundles: list[dict[str, float]], spread: bool, seconds: int
) -> PlacementGroup:
    name = f"{what} {uuid.uuid4().hex[:4]}"  # a name may be in the cluster once
    group = placement_group(bundles, strategy="SPREAD" if spread else "PACK", name=name)
    if not group.wait(seconds):
        remove_placement_group(group)
        names = sorted({name for bundle in bundles for name in bundle})
        available = ray.available_resources()
        free = ", ".join(f"{available.get(name, 0.0):g} {name}" for name in names)
        raise ResourceError(
            f"{what} asked for {_counted(bundles)} and were not placed within "
            f"{seconds} s (runtime.autoscaling.placement_seconds); free now: {free}; held: "
            f"{'; '.join(_holders(names, available)) or 'nothing'}; ask for less, or wait until "
            "the holders have ended"
        )
    return group


def _counted(bundles: Sequence[Bundle]) -> str:
    """Bundles in words, equal ones together: ``2 x (0.5 CPU) and 1 x (1 CPU, 1 GPU)``."""
    counts = Counter(said(bundle) for bundle in bundles)
    return " and ".join(f"{number} x ({bundle})" for bundle, number in counts.items())


def _holders(names: Sequence[str], available: Mapping[str, float]) -> list[str]:
    """Who holds some of these resources: placement groups by name, and the rest in one sum."""
    outside = {name: x - available.get(name, 0.0) for name, x in ray.cluster_resources().items()}
    found = []
    for group in placement_group_table().values():
        if group["state"] != "CREATED":
            continue
        held = _summed(group["bundles"].values(), names)
        outside = {name: x - held.get(name, 0.0) for name, x in outside.items()}
        if held:
            found.append(f"{group['name'] or 'a placement group without a name'} {said(held)}")
    rest = {name: outside[name] for name in names if outside.get(name, 0.0) > 1e-4}
    return [*sorted(found), *([f"other actors and tasks {said(rest)}"] if rest else [])]


def _summed(bundles: Iterable[Bundle], names: Sequence[str]) -> dict[str, float]:
    parts = list(bundles)
    total = {name: sum(bundle.get(name, 0.0) for bundle in parts) for name in names}
    return {name: amount for name, amount in total.items() if amount > 0}
