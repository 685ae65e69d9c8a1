"""What the server sends to clients, what it hears of them, and both in the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.learning.wire import Payload, WireDtype, to_wire
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


class StateVersions:
    """Which clients hold the newest version of a state that changes from round to round.

    A version reaches a client once, whatever it is for, training or validation. Who holds the one
    before gets the change, in the wire's number format; everybody else gets the whole state.

    Args:
        pool: names the clients.
        stage: for the ledger.
        wire_dtype: number format of what travels.
    """

    def __init__(self, pool: ClientPool, *, stage: str, wire_dtype: WireDtype) -> None:
        self._pool = pool
        self._stage = stage
        self._wire_dtype = wire_dtype
        self._holders: set[int] = set()
        self._earlier_holders: set[int] = set()

    def renew(self) -> None:
        """The state has changed; nobody holds the new version yet."""
        self._holders, self._earlier_holders = set(), self._holders

    def send(self, clients: Sequence[int], state: FlatState, round_index: int) -> list[Transfer]:
        """The ledger's lines for bringing the newest version to clients that lack it.

        Args:
            clients: who needs it, ascending.
            state: the newest version.
            round_index: the round.
        """
        lacking = [client for client in clients if client not in self._holders]
        change = to_wire(state, state, self._wire_dtype)
        lines = [
            line
            for payload, earlier in ((state, False), (change, True))
            for line in broadcast_transfers(
                [
                    self._pool.client_name(client)
                    for client in lacking
                    if (client in self._earlier_holders) == earlier
                ],
                payload,
                stage=self._stage,
                what="state",
                round_index=round_index,
            )
        ]
        self._holders.update(lacking)
        return lines

    def snapshot(self) -> dict[str, Any]:
        """Plain content for a checkpoint."""
        return {"now": sorted(self._holders), "earlier": sorted(self._earlier_holders)}

    def restore(self, content: dict[str, Any]) -> None:
        """Goes on from :meth:`snapshot`."""
        self._holders, self._earlier_holders = set(content["now"]), set(content["earlier"])


@dataclass(frozen=True)
class Validation:
    """What clients say about a state.

    Attributes:
        dice: mean over those that answered.
        is_complete: whether all that were asked did; the failure policy may drop some.
        transfers: what travelled for it.
    """

    dice: float
    is_complete: bool
    transfers: list[Transfer]


def validation_dice(
    pool: ClientPool,
    clients: Sequence[int],
    flat: FlatState,
    *,
    stage: str,
    unit: int,
    with_own_norms: bool = False,
) -> Validation:
    """Mean Dice of a state over clients' own validation pairs.

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
    return Validation(
        dice=sum(scores[client] for client in sorted(scores)) / len(scores),
        is_complete=len(scores) == len(clients),
        transfers=transfers,
    )


def candidate_validation(
    pool: ClientPool, clients: Sequence[int], flat: FlatState, *, stage: str, unit: int
) -> Validation:
    """:func:`validation_dice` of a state that no client holds: it travels down for this alone."""
    said = validation_dice(pool, clients, flat, stage=stage, unit=unit)
    names = [pool.client_name(client) for client in clients]
    down = broadcast_transfers(names, flat, stage=stage, what="candidate", round_index=unit)
    return replace(said, transfers=down + said.transfers)
