"""The number format of a state while it travels.

In float32 the state itself is sent. In half precision the *difference* to what the receiver holds
already is sent: it is small, so that few digits say much. The cast is element by element at the
sender, and both sides add the same difference to the same state, so sums over clients stay exact
and equal under every placement.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dsfedmed_ray.learning.aggregation import FlatState

WireDtype = Literal["float32", "float16", "bfloat16"]
WIRE_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class StateDelta:
    """What is sent of a state in half precision.

    Attributes:
        values: ``[num_values]``, the difference: ``float16``, or the bits of bfloat16 as ``int16``,
            which NumPy has no type for.
        counters: ``int64 [num_counters]``, as they are.
    """

    values: NDArray[Any]
    counters: NDArray[np.int64]


Payload = FlatState | StateDelta


def to_wire(state: FlatState, held: FlatState, dtype: WireDtype) -> Payload:
    """What is sent of a state.

    Args:
        state: to be sent.
        held: what the receiver holds already.
        dtype: ``float32`` sends the state as it is.
    """
    if dtype == "float32":
        return state
    # Beyond float16's range a value becomes infinite, which the sum refuses by name.
    with np.errstate(over="ignore"):
        difference = state.values - held.values
        if dtype == "float16":
            return StateDelta(values=difference.astype(np.float16), counters=state.counters)
    bits = torch.from_numpy(difference).to(torch.bfloat16).view(torch.int16).numpy()
    return StateDelta(values=bits, counters=state.counters)


def from_wire(payload: Payload, held: FlatState) -> FlatState:
    """The state that the receiver puts together.

    Args:
        payload: what :func:`to_wire` gave.
        held: what the receiver held, the same as at the sender.
    """
    if isinstance(payload, FlatState):
        return payload
    if payload.values.dtype == np.float16:
        difference = payload.values.astype(np.float32)
    else:
        bits = torch.from_numpy(payload.values.copy())
        difference = bits.view(torch.bfloat16).float().numpy()
    return FlatState(values=held.values + difference, counters=payload.counters)
