"""A version of a state reaches a client once, as a change where it holds the version before."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.learning.wire import to_wire
from dsfedmed_ray.methods.exchange import StateVersions, validation_dice

STATE = FlatState(values=np.zeros(100, np.float32), counters=np.zeros(0, np.int64))
WHOLE, CHANGE = payload_bytes(STATE), payload_bytes(to_wire(STATE, STATE, "float16"))


def versions(wire_dtype: Any = "float32") -> StateVersions:
    pool: Any = SimpleNamespace(client_name=str)
    return StateVersions(pool, stage="train", wire_dtype=wire_dtype)


def sent(state: StateVersions, clients: list[int], round_index: int = 0) -> dict[str, int]:
    lines = state.send(clients, STATE, round_index)
    assert {(x.stage, x.direction, x.what, x.round_index) for x in lines} <= {
        ("train", "downlink", "state", round_index)
    }
    return {line.client: line.num_bytes for line in lines}


def test_what_a_client_validated_does_not_come_again_with_the_next_round() -> None:
    """Clients 0 and 1 train; 0 and 2 validate the mean; 0 and 1 train from it: 1 lacks it."""
    state = versions()
    assert sent(state, [0, 1]) == {"0": WHOLE, "1": WHOLE}
    state.renew()
    assert sent(state, [0, 2]) == {"0": WHOLE, "2": WHOLE}
    assert sent(state, [0, 1], 1) == {"1": WHOLE}
    state.renew()
    assert sent(state, [0, 2], 1) == {"0": WHOLE, "2": WHOLE}  # also after the last round


def test_a_change_goes_to_those_who_hold_the_version_before() -> None:
    """Client 2 holds none of the first two versions, client 1 misses the third."""
    state = versions("float16")
    assert sent(state, [0, 1]) == {"0": WHOLE, "1": WHOLE}
    state.renew()
    assert sent(state, [0, 2]) == {"2": WHOLE, "0": CHANGE}
    assert sent(state, [1]) == {"1": CHANGE}
    state.renew()
    assert sent(state, [0, 2]) == {"0": CHANGE, "2": CHANGE}
    state.renew()
    assert sent(state, [0, 1, 2]) == {"1": WHOLE, "0": CHANGE, "2": CHANGE}


@pytest.mark.parametrize("wire_dtype", ["float32", "float16"])
def test_who_holds_what_is_part_of_a_checkpoint(wire_dtype: Any) -> None:
    state, resumed = versions(wire_dtype), versions(wire_dtype)
    sent(state, [0, 1])
    state.renew()
    sent(state, [0])
    resumed.restore(state.snapshot())
    for clients in ([0, 1, 2], [2]):
        assert sent(state, clients) == sent(resumed, clients)
        state.renew()
        resumed.renew()


class Judges:
    """A pool whose policy dropped client 2."""

    @staticmethod
    def client_name(client: int) -> str:
        return f"site {client}"

    @staticmethod
    def map(method: str, clients: list[int], *_: Any) -> Any:
        assert method == "evaluate"
        return ((client, 0.25 * client) for client in reversed(clients) if client != 2)


def test_a_validation_says_whether_all_answered() -> None:
    """Clients 1 and 3 say 0.25 and 0.75: mean 0.5; asked with client 2 they are not all."""
    pool: Any = Judges()
    whole = validation_dice(pool, [1, 3], STATE, stage="train", unit=0)
    partial = validation_dice(pool, [1, 2, 3], STATE, stage="train", unit=0)
    assert (whole.dice, whole.is_complete) == (0.5, True)
    assert (partial.dice, partial.is_complete) == (0.5, False)
    assert [line.client for line in partial.transfers] == ["site 1", "site 3"]
