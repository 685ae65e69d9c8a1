"""Federated averaging that gives the same bits for every grouping of the clients.

Floating-point sums depend on their order, so a mean taken over chunks of clients differs from a
mean over single clients. Here a partial sum is ``sum_k n_k * state_k`` in int64 fixed point:
integer addition is associative and commutative, hence every chunking, every worker count and every
arrival order gives the same integers, which are divided once.

Range: with ``b`` scale bits a value ``v`` of weight ``n`` counts as ``round(v * n * 2**b)``. Values
must stay below :data:`MAX_ABSOLUTE_VALUE`; ``b`` is chosen from the round's total weight so that
the sum cannot leave int64. With 1,000 samples in a round, ``b`` is 38: one unit is 4e-12.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dsfedmed_ray.errors import NonFiniteStateError
from dsfedmed_ray.models.segmenter import State

MAX_ABSOLUTE_VALUE = 2.0**14
"""A state with a larger value is refused: it has diverged, or the scale does not fit it."""

_SLICE = 1 << 20  # values converted at once, so that a large model needs no large temporaries


@dataclass(frozen=True)
class FlatState:
    """A model's travelling state as two vectors.

    Attributes:
        values: ``float32 [num_values]``, every floating-point entry in order.
        counters: ``int64 [num_counters]``, every integer entry (``num_batches_tracked``) in order.
    """

    values: NDArray[np.float32]
    counters: NDArray[np.int64]

    @property
    def num_bytes(self) -> int:
        """Bytes of both vectors."""
        return self.values.nbytes + self.counters.nbytes


@dataclass(frozen=True)
class StateLayout:
    """Names and shapes of a state's entries; turns a state into a :class:`FlatState` and back."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    is_counter: tuple[bool, ...]

    @classmethod
    def of(cls, state: State) -> "StateLayout":
        """The layout of ``state``."""
        return cls(
            names=tuple(state),
            shapes=tuple(tuple(value.shape) for value in state.values()),
            is_counter=tuple(not value.is_floating_point() for value in state.values()),
        )

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of values and of counters in a flat state."""
        sizes = {False: 0, True: 0}
        for shape, is_counter in zip(self.shapes, self.is_counter, strict=True):
            sizes[is_counter] += int(np.prod(shape, dtype=np.int64))
        return sizes[False], sizes[True]

    def flatten(self, state: State) -> FlatState:
        """Copies a state into two vectors."""
        values = [
            _vector(state[n]) for n, c in zip(self.names, self.is_counter, strict=True) if not c
        ]
        counters = [
            _vector(state[n]) for n, c in zip(self.names, self.is_counter, strict=True) if c
        ]
        return FlatState(
            values=torch.cat([*values, torch.empty(0)]).float().numpy(),
            counters=torch.cat([*counters, torch.empty(0, dtype=torch.int64)]).numpy(),
        )

    def unflatten(self, flat: FlatState) -> State:
        """Copies two vectors into a state of CPU tensors."""
        values, counters = torch.tensor(flat.values), torch.tensor(flat.counters)
        state: State = {}
        at = {False: 0, True: 0}
        for name, shape, is_counter in zip(self.names, self.shapes, self.is_counter, strict=True):
            source = counters if is_counter else values
            size = int(np.prod(shape, dtype=np.int64))
            start = at[is_counter]
            state[name] = source[start : start + size].view(shape)
            at[is_counter] = start + size
        return state


def _vector(value: Tensor) -> Tensor:
    return value.detach().reshape(-1).cpu()


class ResidentModel:
    """A model whose travelling state lives in one flat tensor.

    Loading a broadcast is one copy and reading an update is none, however many layers there are.
    The parameters and buffers named by ``names`` become views of the flat tensor, on the model's
    own device.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        self.model = model
        # Not ``state_dict()``: a buffer that no checkpoint of others has may travel as well.
        state: State = dict(model.named_parameters(remove_duplicate=False))
        state.update(model.named_buffers(remove_duplicate=False))
        self.layout = StateLayout.of({name: state[name] for name in names})
        device = next(iter(state.values())).device
        flat = self.layout.flatten({name: state[name] for name in names})
        self._values = torch.tensor(flat.values, device=device)
        self._counters = torch.tensor(flat.counters, device=device)
        self._rebind(state)

    def _rebind(self, state: State) -> None:
        at = {False: 0, True: 0}
        for name, is_counter in zip(self.layout.names, self.layout.is_counter, strict=True):
            source = self._counters if is_counter else self._values
            tensor = state[name]
            start = at[is_counter]
            view = source[start : start + tensor.numel()].view(tensor.shape)
            at[is_counter] = start + tensor.numel()
            if isinstance(tensor, nn.Parameter):
                tensor.data = view
            else:
                owner, _, leaf = name.rpartition(".")
                self.model.get_submodule(owner)._buffers[leaf] = view

    def load(self, flat: FlatState) -> None:
        """Copies a flat state into the model."""
        self._values.copy_(_as_tensor(flat.values))
        self._counters.copy_(_as_tensor(flat.counters))

    def read(self) -> FlatState:
        """The model's state now; shares memory with the model where that is on the CPU."""
        return FlatState(values=self._values.cpu().numpy(), counters=self._counters.cpu().numpy())


def _as_tensor(array: NDArray[np.generic]) -> Tensor:
    # torch warns about read-only memory, such as arrays of the object store; a copy costs little.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def scale_bits_for(total_weight: int) -> int:
    """Fixed-point bits behind the point, such that no sum of this total weight overflows int64.

    ``b = 62 - 14 - ceil(log2(total_weight))``, from ``|v| < 2**14`` and one bit to spare.

    Raises:
        ValueError: the weight is not positive, or so large that fewer than 16 bits would be left.
    """
    if total_weight < 1:
        raise ValueError(f"total aggregation weight must be positive, got {total_weight}")
    bits = 62 - 14 - (total_weight - 1).bit_length()
    if bits < 16:
        raise ValueError(f"total aggregation weight {total_weight} is beyond 2**32 samples a round")
    return bits


class FixedPointSum:
    """A partial sum of weighted states; merging partial sums commutes."""

    def __init__(self, num_values: int, num_counters: int, scale_bits: int) -> None:
        self.scale_bits = scale_bits
        self.total_weight = 0
        self._sum = np.zeros(num_values, dtype=np.int64)
        self._counters = np.zeros(num_counters, dtype=np.int64)

    def add(self, state: FlatState, weight: int) -> None:
        """Adds one client's state.

        Args:
            state: the client's state.
            weight: its number of training samples, at least 1.

        Raises:
            NonFiniteStateError: a value is NaN, infinite or not below
                :data:`MAX_ABSOLUTE_VALUE`; nothing is added.
        """
        largest = float(np.abs(state.values).max(initial=0.0))
        if not largest < MAX_ABSOLUTE_VALUE:  # also catches NaN
            raise NonFiniteStateError(
                f"state holds NaN, infinity or a value of {MAX_ABSOLUTE_VALUE:g} or more "
                f"(largest: {largest:g}); lower the learning rate"
            )
        factor = float(weight) * 2.0**self.scale_bits
        for start in range(0, self._sum.size, _SLICE):
            part = slice(start, start + _SLICE)
            scaled = state.values[part].astype(np.float64)
            scaled *= factor
            self._sum[part] += np.rint(scaled, out=scaled).astype(np.int64)
        # The rule for integer buffers: they count batches, and the mean of counts means nothing;
        # the largest count is the same in any order.
        np.maximum(self._counters, state.counters, out=self._counters)
        self.total_weight += weight

    def empty_like(self) -> "FixedPointSum":
        """An empty sum that merges with this one."""
        return FixedPointSum(self._sum.size, self._counters.size, self.scale_bits)

    def merge(self, other: "FixedPointSum") -> None:
        """Adds another partial sum of the same round.

        Raises:
            ValueError: the other sum has another scale or size.
        """
        if other.scale_bits != self.scale_bits or other._sum.size != self._sum.size:
            raise ValueError("partial sums of different scale or size do not merge")
        self._sum += other._sum
        np.maximum(self._counters, other._counters, out=self._counters)
        self.total_weight += other.total_weight

    def mean(self) -> FlatState:
        """The weighted mean, ``sum_k n_k state_k / sum_k n_k`` (FedAvg, paper section 3.1).

        Raises:
            ValueError: nothing was added.
        """
        if self.total_weight == 0:
            raise ValueError("mean of an empty sum")
        divisor = float(self.total_weight) * 2.0**self.scale_bits
        return FlatState(
            values=(self._sum.astype(np.float64) / divisor).astype(np.float32),
            counters=self._counters.copy(),
        )
