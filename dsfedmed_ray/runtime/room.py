"""What a cluster can ever hold: the nodes that it has and those that its autoscaler may start.

Numbers only: nothing here imports Ray. What Ray knows is asked in
:func:`~dsfedmed_ray.runtime.placement.cluster_room`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dsfedmed_ray.errors import ConfigurationError, ResourceError

Bundle = Mapping[str, float]
"""Resources by Ray's names, of an actor or of a node."""

_SLACK = 1e-6
_LOWER = "runtime.resources or runtime.num_workers"


@dataclass(frozen=True, kw_only=True)
class NodeType:
    """A kind of node that an autoscaler may start.

    Attributes:
        max_nodes: how many of them there may be at most, at least 1.
        resources: of one node, by Ray's names.
    """

    max_nodes: int
    resources: dict[str, float]

    def __post_init__(self) -> None:
        if self.max_nodes < 1:
            raise ConfigurationError(
                f"runtime.autoscaling: max_nodes is {self.max_nodes}; at least 1, or leave the "
                "node type out"
            )


@dataclass(frozen=True, kw_only=True)
class Autoscaling:
    """What may still come to a cluster, and how long a run waits for it.

    Attributes:
        node_types: of the cluster's file; empty for a cluster that does not grow.
        placement_seconds: how long actors may wait for their place, in whole seconds as Ray counts
            them, at least 1; None is 30, or 900 where nodes may come: a machine has to boot and
            install.
    """

    node_types: list[NodeType] = field(default_factory=list)
    placement_seconds: int | None = None

    def __post_init__(self) -> None:
        if self.placement_seconds is not None and self.placement_seconds < 1:
            raise ConfigurationError(
                f"runtime.autoscaling.placement_seconds is {self.placement_seconds}; at least 1"
            )

    @property
    def seconds(self) -> int:
        """How long actors may wait, in seconds."""
        if self.placement_seconds is not None:
            return self.placement_seconds
        return 900 if self.node_types else 30

    def nodes_to_come(self, nodes: Sequence[Bundle]) -> tuple[Bundle, ...]:
        """The nodes that may still be started.

        Args:
            nodes: that are there. One that has a type's resources to the number is of that type.
        """
        return tuple(
            node_type.resources
            for node_type in self.node_types
            for _ in range(node_type.max_nodes - sum(_is_of(node_type, node) for node in nodes))
        )


def _is_of(node_type: NodeType, node: Bundle) -> bool:
    return all(node.get(name) == amount for name, amount in node_type.resources.items())


@dataclass(frozen=True, kw_only=True)
class ClusterRoom:
    """A cluster's nodes, thought empty.

    Attributes:
        nodes: that are there.
        to_come: that an autoscaler may add.
    """

    nodes: Sequence[Bundle]
    to_come: Sequence[Bundle] = ()

    def total(self, name: str) -> float:
        """How much of a resource there is now."""
        return sum(node.get(name, 0.0) for node in self.nodes)

    def require(self, wanted: Mapping[str, Sequence[Bundle]], lower: str = _LOWER) -> None:
        """Checks that the room suffices for all of these at the same time.

        Necessary, not sufficient: sums are compared, and each actor with each node.

        Args:
            wanted: what each group's actors ask for, by the group's name in messages.
            lower: the settings that ask for less.

        Raises:
            ResourceError: it never can.
        """
        names = {name for group in wanted.values() for bundle in group for name in bundle}
        for name in sorted(names):
            self._require_sum(name, wanted, lower)
        for group, bundles in wanted.items():
            for bundle in bundles:
                self._require_a_node(group, bundle)

    def _require_sum(self, name: str, wanted: Mapping[str, Sequence[Bundle]], lower: str) -> None:
        sums = {group: _sum(bundles, name) for group, bundles in wanted.items()}
        parts = {group: amount for group, amount in sums.items() if amount > 0}
        asked, have = sum(parts.values()), self.total(name)
        later = have + _sum(self.to_come, name)
        if asked <= later + _SLACK:
            return
        if len(parts) == 1:
            (group,) = parts
            number = len(wanted[group])
            in_detail = f"{number} actor" if number == 1 else f"{number} actors"
        else:
            in_detail = ", ".join(f"{group} {amount:g}" for group, amount in parts.items())
        grown = f" and may grow to {later:g} by runtime.autoscaling" if self.to_come else ""
        raise ResourceError(
            f"{_listed(list(parts))} ask for {asked:g} {name} in all ({in_detail}), the cluster "
            f"has {have:g}{grown}; lower {lower}, or add nodes"
        )

    def _require_a_node(self, group: str, bundle: Bundle) -> None:
        for node in (*self.nodes, *self.to_come):
            if all(amount <= node.get(name, 0.0) + _SLACK for name, amount in bundle.items()):
                return
        raise ResourceError(
            f"{group}: one actor asks for {said(bundle)}, and no single node can have that; lower "
            "runtime.resources, or add a node that can"
        )


def said(bundle: Bundle) -> str:
    """A bundle in words, for example ``0.5 CPU, 0.25 GPU``."""
    return ", ".join(f"{amount:g} {name}" for name, amount in bundle.items()) or "nothing"


def _sum(bundles: Sequence[Bundle], name: str) -> float:
    return sum(bundle.get(name, 0.0) for bundle in bundles)


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
