"""States in half precision: which difference arrives, by hand."""

from typing import Any

import numpy as np
import pytest

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.errors import NonFiniteStateError
from dsfedmed_ray.learning.aggregation import FixedPointSum, FlatState
from dsfedmed_ray.learning.wire import StateDelta, WireDtype, from_wire, to_wire


def flat(*values: float, counters: tuple[int, ...] = (7,)) -> FlatState:
    return FlatState(values=np.array(values, np.float32), counters=np.array(counters, np.int64))


@pytest.mark.parametrize(
    ("dtype", "step"),
    [("float16", 2**-10), ("bfloat16", 2**-7)],
)
def test_a_difference_is_rounded_to_the_formats_digits(dtype: WireDtype, step: float) -> None:
    """Near 1 a float16 steps by 2^-10 and a bfloat16 by 2^-7; both round to even.

    The sender goes from 4 to 5 + 0.4 steps and to 5 + 0.6 steps: the differences 1 + 0.4 steps and
    1 + 0.6 steps become 1 and 1 + 1 step. Sent as it is, 5 + 0.6 steps would lose both: near 5 the
    formats step four times as far.
    """
    held = flat(4.0, 4.0)
    sent = to_wire(flat(5.0 + 0.4 * step, 5.0 + 0.6 * step), held, dtype)
    assert from_wire(sent, held).values.tolist() == [5.0, 5.0 + step]
    assert from_wire(sent, held).counters.tolist() == [7]


def test_float32_is_the_state_itself() -> None:
    state = flat(0.1, -3.0)
    assert to_wire(state, flat(1.0, 1.0), "float32") is state
    assert from_wire(state, flat(1.0, 1.0)) is state


def test_what_did_not_change_arrives_as_it_was() -> None:
    held = flat(0.1, 1e-30, -16000.0)
    for dtype in ("float16", "bfloat16"):
        received = from_wire(to_wire(held, held, dtype), held)  # type: ignore[arg-type]
        assert received.values.tobytes() == held.values.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_of_the_bytes(dtype: WireDtype) -> None:
    """10,000 values: 40,000 bytes become 20,000; what pickle adds is below 300."""
    state = flat(*np.zeros(10_000))
    whole = payload_bytes(to_wire(state, state, "float32"))
    half = payload_bytes(to_wire(state, state, dtype))
    assert 40_008 <= whole < 40_308
    assert 20_008 <= half < 20_308


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_what_has_diverged_is_still_refused(dtype: WireDtype, value: float) -> None:
    """No format turns it into something that can be averaged."""
    held = flat(0.0)
    received = from_wire(to_wire(flat(value), held, dtype), held)
    with pytest.raises(NonFiniteStateError, match="state holds NaN, infinity"):
        FixedPointSum(1, 1, 38).add(received, 1)


def test_arrays_from_the_object_store_are_read_only() -> None:
    held = flat(1.0)
    sent: Any = to_wire(flat(1.5), held, "bfloat16")
    assert isinstance(sent, StateDelta)
    for array in (sent.values, sent.counters, held.values):
        array.flags.writeable = False
    assert from_wire(sent, held).values.tolist() == [1.5]
