"""What the server sends to clients, what it hears of them, and both in the ledger."""

from collections.abc import Mapping, Sequence

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.learning.wire import Payload
from dsfedmed_ray.records import Direction, Transfer
from dsfedmed_ray.runtime.client_pool import ClientPool


def transfers_of(
    client: str,
    sizes: Mapping[str, int],
    *,
    direction: Direction,
    stage: str,
    round_index: int | None,
) -> list[Transfer]:
    """The ledger's lines for what one client sends or gets at once.

    Args:
        client: its name.
        sizes: bytes by payload.
        direction: to or from the server.
        stage: the stage that sends it.
        round_index: the round; None outside rounds.
    """
    return [
        Transfer(
            client=client,
            direction=direction,
            stage=stage,
            what=what,
            num_bytes=num_bytes,
            round_index=round_index,
        )
        for what, num_bytes in sizes.items()
    ]


def broadcast_transfers(
    names: Sequence[str], payload: Payload, *, stage: str, what: str, round_index: int | None
) -> list[Transfer]:
    """The ledger's lines for one state sent to several clients."""
    sizes = {what: payload_bytes(payload)}
    return [
        line
        for name in names
        for line in transfers_of(
            name, sizes, direction="downlink", stage=stage, round_index=round_index
        )
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
        line
        for client in sorted(scores)
        for line in transfers_of(
            pool.client_name(client),
            {"validation_dice": payload_bytes(scores[client])},
            direction="uplink",
            stage=stage,
            round_index=unit,
        )
    ]
    return sum(scores[client] for client in sorted(scores)) / len(scores), transfers
