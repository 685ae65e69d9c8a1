"""What a worker can do for a client, and the values that pass between server and workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dsfedmed_ray.learning.aggregation import FixedPointSum, FlatState
from dsfedmed_ray.runtime.served_share import ServedDistillation


@dataclass(frozen=True, kw_only=True)
class FitOrder:
    """What the server asks of a round's clients.

    Attributes:
        round_index: from 0.
        scale_bits: fixed-point scale of the round's sums.
        stage: whose round it is; the first word of the clients' random streams.
        distillation: what to distil on; None trains on the client's own pairs.
    """

    round_index: int
    scale_bits: int
    stage: str = "train_federated"
    distillation: ServedDistillation | None = None


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """One client's training in one round.

    Attributes:
        state: its state after training; may share memory with the resident model.
        num_samples: its aggregation weight, n_k.
        metrics: finite numbers by name.
        num_uplink_bytes: serialised size of what the client would send: all of the above.
    """

    state: FlatState
    num_samples: int
    metrics: Mapping[str, float]
    num_uplink_bytes: int


@dataclass(frozen=True, kw_only=True)
class ClientReply:
    """What the driver learns about one client of a round; the state is in the partial sum."""

    client_id: int
    num_samples: int
    metrics: Mapping[str, float]
    num_uplink_bytes: int


@dataclass(frozen=True, kw_only=True)
class ClientError:
    """A client's failure as a value, so that one client cannot break its chunk."""

    client_id: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class FitChunk:
    """A worker's answer for a chunk of clients: one partial sum and small replies."""

    partial: FixedPointSum | None
    replies: tuple[ClientReply, ...]
    errors: tuple[ClientError, ...]


class ClientProgram(Protocol):
    """A hospital's own code, resident on a worker; becomes one client after the other.

    A program holds its model, optimiser buffers and data cache for as long as the worker lives. It
    must give the same result for a client whoever was served before.
    """

    def client_name(self, client_id: int) -> str:
        """The client's name, for messages and the ledger."""
        ...

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        """Trains from the broadcast state on the client's own pairs."""
        ...


class ProgramBuilder(Protocol):
    """Builds a program inside the worker; picklable and small."""

    def __call__(self) -> ClientProgram:
        """The program."""
        ...
