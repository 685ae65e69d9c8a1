"""The interface that methods see, whoever runs the clients; and its form without Ray."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from dsfedmed_ray.learning.aggregation import FixedPointSum, FlatState, scale_bits_for
from dsfedmed_ray.runtime.client_program import (
    ClientError,
    ClientReply,
    FitChunk,
    FitOrder,
    ProgramBuilder,
)
from dsfedmed_ray.runtime.client_worker import ClientWorker
from dsfedmed_ray.runtime.failures import FailurePolicy, Verdict
from dsfedmed_ray.runtime.served_share import ServedDistillation

Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """A finished round.

    Attributes:
        state: the new global state.
        replies: one for each client that took part, ascending by client.
        dropped: clients that the policy left out, with the reason.
    """

    state: FlatState
    replies: tuple[ClientReply, ...]
    dropped: tuple[ClientError, ...]


class ClientPool(ABC):
    """Runs clients somewhere. Every pool gives the same bits.

    Args:
        policy: judges failures.
        client_name: names a client id for messages.
        note: receives one line for each retry, drop and replaced worker.
    """

    def __init__(
        self, policy: FailurePolicy, client_name: Callable[[int], str], note: Note
    ) -> None:
        self.policy = policy
        self.client_name = client_name
        self.note = note

    @abstractmethod
    def close(self) -> None:
        """Ends the workers."""

    @abstractmethod
    def _fit_chunks(
        self, broadcast: FlatState, client_ids: Sequence[int], order: FitOrder
    ) -> Generator[FitChunk, None, None]:
        """Yields answers until every client was tried once; order and grouping are free."""

    @abstractmethod
    def _calls(
        self, method: str, client_ids: Sequence[int], arguments: tuple[Any, ...]
    ) -> Generator[tuple[int, Any], None, None]:
        """Yields each client's result or :class:`ClientError`, in any order."""

    def fit_round(
        self,
        broadcast: FlatState,
        client_ids: Sequence[int],
        *,
        round_index: int,
        total_weight: int,
        stage: str = "train_federated",
        num_asked: int | None = None,
        distillation: ServedDistillation | None = None,
    ) -> RoundResult:
        """One round of federated averaging.

        Args:
            broadcast: the global state.
            client_ids: the round's clients.
            round_index: from 0.
            total_weight: sum of their training samples; fixes the fixed-point scale.
            stage: whose round it is.
            num_asked: clients that were to take part, those included that are simulated to be
                away; None is ``client_ids`` alone.
            distillation: what to distil on; None trains on the clients' own pairs.

        Raises:
            ClientFailureError: a client failed and the policy stops the run.
            TooFewRepliesError: too few clients replied.
        """
        order = FitOrder(
            round_index=round_index,
            scale_bits=scale_bits_for(total_weight),
            stage=stage,
            distillation=distillation,
        )
        total = FixedPointSum(broadcast.values.size, broadcast.counters.size, order.scale_bits)
        replies: dict[int, ClientReply] = {}
        dropped: dict[int, ClientError] = {}
        waiting: Sequence[int] = client_ids
        attempts = dict.fromkeys(client_ids, 0)
        while waiting:
            again: list[int] = []
            # Closed at once where the policy stops the run: nothing may go on behind its back.
            with closing(self._fit_chunks(broadcast, waiting, order)) as chunks:
                for chunk in chunks:
                    if chunk.partial is not None:
                        total.merge(chunk.partial)
                    replies.update((reply.client_id, reply) for reply in chunk.replies)
                    again += self._judge(chunk.errors, attempts, dropped)
            waiting = again
        asked = len(client_ids) if num_asked is None else num_asked
        self.policy.require_enough(len(replies), asked, f"round {round_index + 1}")
        return RoundResult(
            state=total.mean(),
            replies=tuple(replies[client_id] for client_id in sorted(replies)),
            dropped=tuple(dropped[client_id] for client_id in sorted(dropped)),
        )

    def map(
        self, method: str, client_ids: Sequence[int], *arguments: Any
    ) -> Iterator[tuple[int, Any]]:
        """Runs a program's method for each client.

        Yields:
            ``(client_id, result)`` as they come; clients that the policy dropped are missing.

        Raises:
            ClientFailureError: a client failed and the policy stops the run.
        """
        waiting: Sequence[int] = client_ids
        attempts = dict.fromkeys(client_ids, 0)
        num_results = 0
        dropped: dict[int, ClientError] = {}
        while waiting:
            again: list[int] = []
            with closing(self._calls(method, waiting, arguments)) as results:
                for client_id, result in results:
                    if isinstance(result, ClientError):
                        again += self._judge((result,), attempts, dropped)
                    else:
                        num_results += 1
                        yield client_id, result
            waiting = again
        self.policy.require_enough(num_results, len(client_ids), method)

    def _judge(
        self,
        errors: Sequence[ClientError],
        attempts: dict[int, int],
        dropped: dict[int, ClientError],
    ) -> list[int]:
        retried = []
        for error in errors:
            attempts[error.client_id] += 1
            name = self.client_name(error.client_id)
            verdict = self.policy.judge(name, error.reason, attempts[error.client_id])
            self.note(f"client {name} failed: {error.reason}; {verdict.value}")
            if verdict is Verdict.RETRY:
                retried.append(error.client_id)
            else:
                dropped[error.client_id] = error
        return retried


class SerialPool(ClientPool):
    """Runs every client in this process, one after the other. No Ray."""

    def __init__(
        self,
        build: ProgramBuilder,
        *,
        num_threads: int,
        policy: FailurePolicy,
        client_name: Callable[[int], str],
        note: Note,
    ) -> None:
        super().__init__(policy, client_name, note)
        self._worker = ClientWorker(build, num_threads)

    def close(self) -> None:
        """Nothing to end."""

    def _fit_chunks(
        self, broadcast: FlatState, client_ids: Sequence[int], order: FitOrder
    ) -> Generator[FitChunk, None, None]:
        # One client a chunk: a failure is known, and progress shows, at once.
        for client_id in client_ids:
            yield self._worker.fit_chunk(broadcast, [client_id], order)

    def _calls(
        self, method: str, client_ids: Sequence[int], arguments: tuple[Any, ...]
    ) -> Generator[tuple[int, Any], None, None]:
        for client_id in client_ids:
            yield client_id, self._worker.call(method, client_id, *arguments)
