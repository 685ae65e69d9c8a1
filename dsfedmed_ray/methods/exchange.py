"""What the server sends to clients, what it hears of them, and both in the ledger."""

from collections.abc import Sequence

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.learning.wire import Payload
from dsfedmed_ray.records import Transfer
from dsfedmed_ray.runtime.client_pool import ClientPool


def broadcast_transfers(
    names: Sequence[str], payload: Payload, *, stage: str, what: str, round_index: int | None
) -> list[Transfer]:
    """The ledger's lines for one state sent to several clients."""
    num_bytes = payload_bytes(payload)
    return [
        Transfer(
            client=name,
            direction="downlink",
            stage=stage,
            what=what,
            num_bytes=num_bytes,
            round_index=round_index,
        )
        for name in names
    ]


def validation_dice(
    pool: ClientPool,
    clients: Sequence[int],
    flat: FlatState,
    *,
    stage: str,
    unit: int,
    with_own_norms: bool = False,
) -> tuple[float, list[Transfer]]:
    """Mean Dice of a state over clients' own validation pairs, and what travelled for it.

    Each client counts the same, whatever its size: the aim is a model for every hospital. Only
    the score travels here; the caller counts how the state came to the clients. With their own
    norms, clients complete the state by what they kept with this round.
    """
    if with_own_norms:
        results = pool.map("evaluate_own", clients, flat, "validation", unit)
    else:
        results = pool.map("evaluate", clients, flat, "validation")
    scores = dict(results)
    transfers = [
        Transfer(
            client=pool.client_name(client),
            direction="uplink",
            stage=stage,
            what="validation_dice",
            num_bytes=payload_bytes(scores[client]),
            round_index=unit,
        )
        for client in sorted(scores)
    ]
    return sum(scores[client] for client in sorted(scores)) / len(scores), transfers
