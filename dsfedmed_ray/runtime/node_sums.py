"""Partial sums of a round combined on the nodes where they were made.

With workers on several nodes, a chunk's partial sum stays in its node's object store and only the
small replies travel. At the end of the round, and whenever a node holds several, a worker of that
node adds them; the server receives one sum a node. Integer sums commute, so no bit depends on it.

A node, or a worker, that leaves takes with it sums that nobody else has. Their clients have not
been counted yet and are done again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from dsfedmed_ray.learning.aggregation import FixedPointSum, FlatState
from dsfedmed_ray.runtime.client_program import FitChunk, FitOrder
from dsfedmed_ray.runtime.client_worker import ClientWorker
from dsfedmed_ray.runtime.ray_failures import LOST

MOST_HELD = 8
"""Partial sums that wait on a node before they are added, so that its memory is bounded."""


@dataclass(frozen=True, kw_only=True)
class HeldChunk:
    """A chunk's answer whose partial sum stayed where it was made.

    Attributes:
        node: the node's id.
        worker: the actor that answered; adds what its node holds.
        partial_ref: the partial sum; None if every client failed.
        chunk: the answer without the sum.
    """

    node: str
    worker: Any
    partial_ref: Any
    chunk: FitChunk


def fit_and_hold(
    worker: ClientWorker, broadcast: FlatState, client_ids: Sequence[int], order: FitOrder
) -> HeldChunk:
    """Runs inside a worker: trains a chunk and keeps its sum on the node."""
    chunk = worker.fit_chunk(broadcast, client_ids, order)
    context = ray.get_runtime_context()
    return HeldChunk(
        node=context.get_node_id(),
        worker=context.current_actor,
        partial_ref=None if chunk.partial is None else ray.put(chunk.partial),
        chunk=replace(chunk, partial=None),
    )


def _added(_: ClientWorker, partial_refs: Sequence[Any]) -> FixedPointSum:
    """Runs inside a worker: one sum of several that its node holds."""
    partials = ray.get(list(partial_refs))
    total = partials[0].empty_like()
    for partial in partials:
        total.merge(partial)
    return total


@dataclass
class _Node:
    worker: Any
    refs: list[Any] = field(default_factory=list)
    chunks: list[FitChunk] = field(default_factory=list)


class NodeSums:
    """What the nodes hold of one round."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}

    def hold(self, held: HeldChunk) -> None:
        """Notes an answer; its clients count once :meth:`collect` has its node's sum."""
        node = self._nodes.setdefault(held.node, _Node(held.worker))
        node.worker = held.worker
        node.chunks.append(held.chunk)
        if held.partial_ref is not None:
            node.refs.append(held.partial_ref)
        if len(node.refs) == MOST_HELD:
            node.refs = [self._add(node)]

    def collect(self) -> Iterator[FitChunk | list[int]]:
        """Yields one answer a node; for a node whose sums are lost, the clients to do again."""
        totals = [(node, self._add(node) if node.refs else None) for node in self._nodes.values()]
        for node, total_ref in totals:
            replies = tuple(reply for chunk in node.chunks for reply in chunk.replies)
            errors = tuple(error for chunk in node.chunks for error in chunk.errors)
            try:
                partial = None if total_ref is None else ray.get(total_ref)
            except LOST:
                yield [reply.client_id for reply in replies]
                yield FitChunk(partial=None, replies=(), errors=errors)
                continue
            yield FitChunk(partial=partial, replies=replies, errors=errors)

    def _add(self, node: _Node) -> Any:
        return node.worker.__ray_call__.remote(_added, node.refs)


def has_several_nodes() -> bool:
    """Whether the cluster has more than one node now."""
    return sum(1 for node in ray.nodes() if node["Alive"]) > 1
