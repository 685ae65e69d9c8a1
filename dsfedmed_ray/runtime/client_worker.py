"""A worker: serves chunks of clients through one resident program. A plain class, no Ray."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dsfedmed_ray.errors import NonFiniteStateError
from dsfedmed_ray.learning.aggregation import FixedPointSum, FlatState
from dsfedmed_ray.runtime.client_program import (
    ClientError,
    ClientReply,
    FitChunk,
    FitOrder,
    ProgramBuilder,
)
from dsfedmed_ray.runtime.devices import refusing_full_gpus, role_threads


class ClientWorker:
    """Runs clients one after the other and keeps what they share.

    Args:
        build: builds the program.
        num_threads: torch threads; a part of the configuration, since it decides bits.
    """

    def __init__(self, build: ProgramBuilder, num_threads: int) -> None:
        self._num_threads = num_threads
        with role_threads(num_threads):
            self._program = build()

    def fit_chunk(
        self, broadcast: FlatState, client_ids: Sequence[int], order: FitOrder
    ) -> FitChunk:
        """Trains each client from the broadcast; their states leave as one partial sum."""
        with role_threads(self._num_threads):
            return self._fit_all(broadcast, client_ids, order)

    def _fit_all(
        self, broadcast: FlatState, client_ids: Sequence[int], order: FitOrder
    ) -> FitChunk:
        partial: FixedPointSum | None = None
        replies: list[ClientReply] = []
        errors: list[ClientError] = []
        for client_id in client_ids:
            try:
                with refusing_full_gpus():
                    result = self._program.fit(client_id, broadcast, order)
                _require_finite(result.metrics)
                if partial is None:
                    partial = FixedPointSum(
                        result.state.values.size, result.state.counters.size, order.scale_bits
                    )
                partial.add(result.state, result.num_samples)
            # A client's code may raise anything; it becomes a value that the policy judges.
            except Exception as error:  # noqa: BLE001
                errors.append(ClientError(client_id=client_id, reason=one_line(error)))
                continue
            replies.append(
                ClientReply(
                    client_id=client_id,
                    num_samples=result.num_samples,
                    metrics=dict(result.metrics),
                    num_uplink_bytes=result.num_uplink_bytes,
                )
            )
        return FitChunk(partial=partial, replies=tuple(replies), errors=tuple(errors))

    def call(self, method: str, client_id: int, *arguments: Any) -> Any:
        """Runs another method of the program for one client; a failure comes as a value."""
        try:
            with role_threads(self._num_threads):
                return getattr(self._program, method)(client_id, *arguments)
        except Exception as error:  # noqa: BLE001  (see fit_chunk)
            return ClientError(client_id=client_id, reason=one_line(error))


def _require_finite(metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NonFiniteStateError(f"its {name} is {value}; lower the learning rate")


def one_line(error: BaseException) -> str:
    """An exception as one line: its type and its message's first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
