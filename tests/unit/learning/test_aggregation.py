"""Exact averaging: integers first, one division at the end."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dsfedmed_ray.errors import NonFiniteStateError
from dsfedmed_ray.learning.aggregation import (
    FixedPointSum,
    FlatState,
    ResidentModel,
    StateLayout,
    scale_bits_for,
)


def flat(*values: float, counters: tuple[int, ...] = ()) -> FlatState:
    return FlatState(np.array(values, np.float32), np.array(counters, np.int64))


def mean_of(
    states: list[FlatState], weights: list[int], groups: list[list[int]]
) -> NDArray[np.float32]:
    """The mean when each group of clients makes one partial sum."""
    size, bits = states[0].values.size, scale_bits_for(sum(weights))
    total = FixedPointSum(size, 0, bits)
    for group in groups:
        partial = FixedPointSum(size, 0, bits)
        for client in group:
            partial.add(states[client], weights[client])
        total.merge(partial)
    return total.mean().values


def test_weights_are_those_of_fedavg() -> None:
    """(1 * 2 + 3 * 6) / 4 = 5 and (1 * -1 + 3 * 1) / 4 = 0.5."""
    mean = mean_of([flat(2.0, -1.0), flat(6.0, 1.0)], [1, 3], [[0, 1]])
    assert mean.tolist() == [5.0, 0.5]


def test_every_grouping_and_order_gives_the_same_bits() -> None:
    """Six clients whose values span ten decades, grouped in six ways and in all orders of three."""
    random = np.random.default_rng(0)
    weights = [3, 1, 4, 1, 5, 9]
    states = [
        FlatState(
            (random.standard_normal(500) * 10.0 ** random.integers(-6, 4, 500)).astype(np.float32),
            np.empty(0, np.int64),
        )
        for _ in weights
    ]
    groupings = [
        [[0, 1, 2, 3, 4, 5]],
        [[0], [1], [2], [3], [4], [5]],
        [[5, 4], [3, 2], [1, 0]],
        *([[*order], [3, 4, 5]] for order in itertools.permutations(range(3))),
    ]
    means = {mean_of(states, weights, groups).tobytes() for groups in groupings}
    assert len(means) == 1


def test_small_values_survive_beside_large_ones() -> None:
    """One client holds 1e4, 999 hold 1e-6: the mean is (1e4 + 999e-6) / 1000 = 10.000000999.

    A running mean in float32 has steps of 2**-20, about 1e-6, at 10, so every addition of 1e-9
    is lost and the order decides; a running float32 sum at 1e4 loses them too.
    """
    states = [flat(1e4, 1e-6)] + [flat(1e-6, 1e-6) for _ in range(999)]
    forwards = mean_of(states, [1] * 1000, [list(range(1000))])
    backwards = mean_of(states, [1] * 1000, [list(range(999, 499, -1)), list(range(500))])
    assert forwards.tobytes() == backwards.tobytes()
    assert forwards[0] == np.float32(10.000000999)
    assert forwards[1] == pytest.approx(1e-6, rel=1e-5)

    def running(order: list[int]) -> np.float32:
        mean = np.float32(0.0)
        for count, client in enumerate(order, start=1):
            mean += (states[client].values[0] - mean) / np.float32(count)
        return mean

    assert running(list(range(1000))) != running(list(range(999, -1, -1)))


def test_ten_thousand_clients_keep_their_exact_share() -> None:
    """Equal clients of one sample each: a mean of ones is one, without a remainder for anyone."""
    total = FixedPointSum(1, 0, scale_bits_for(10_000))
    for _ in range(10_000):
        total.add(flat(1.0), 1)
    assert total.mean().values[0] == 1.0
    assert total.total_weight == 10_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**14, -(2.0**14)])
def test_what_cannot_be_summed_is_refused(value: float) -> None:
    total = FixedPointSum(2, 0, scale_bits_for(1))
    with pytest.raises(NonFiniteStateError, match=r"NaN, infinity or a value of 16384 or more"):
        total.add(flat(1.0, value), 1)
    assert total.total_weight == 0
    total.add(flat(1.0, 2.0), 1)
    assert total.mean().values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("weight", [1, 2, 3, 1000, 1024, 1025, 2**31])
def test_the_largest_sum_fits_int64(weight: int) -> None:
    """The scale is b = 48 - ceil(log2 W), so W * 2**14 * 2**b <= 2**62."""
    bits = scale_bits_for(weight)
    assert weight * 2**14 * 2**bits <= 2**62
    largest = float(np.nextafter(np.float32(2.0**14), np.float32(0)))
    total = FixedPointSum(1, 0, bits)
    total.add(flat(largest), weight)
    assert total.mean().values[0] == np.float32(largest)


@pytest.mark.parametrize(
    ("weight", "message"), [(0, "must be positive, got 0"), (2**33, r"beyond 2\*\*32 samples")]
)
def test_impossible_total_weights(weight: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scale_bits_for(weight)


def test_counters_take_the_largest() -> None:
    total = FixedPointSum(0, 2, scale_bits_for(10))
    total.add(flat(counters=(7, 1)), 1)
    other = FixedPointSum(0, 2, scale_bits_for(10))
    other.add(flat(counters=(3, 5)), 9)
    total.merge(other)
    assert total.mean().counters.tolist() == [7, 5]


def test_sums_that_do_not_fit_each_other() -> None:
    total = FixedPointSum(2, 0, 40)
    for other in (FixedPointSum(3, 0, 40), FixedPointSum(2, 0, 39)):
        with pytest.raises(ValueError, match="different scale or size"):
            total.merge(other)
    with pytest.raises(ValueError, match="empty sum"):
        total.mean()


def net_with_batch_norm() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 1))


def test_layout_goes_there_and_back() -> None:
    state = net_with_batch_norm().state_dict()
    state["1.num_batches_tracked"] += 5
    layout = StateLayout.of(state)
    vector = layout.flatten(state)
    assert vector.values.dtype == np.float32
    assert vector.counters.tolist() == [5]
    assert vector.num_bytes == 4 * vector.values.size + 8
    back = layout.unflatten(vector)
    assert list(back) == list(state)
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_flat_states_do_not_share_memory_with_the_model() -> None:
    state = {"weight": torch.ones(3)}
    layout = StateLayout.of(state)
    vector = layout.flatten(state)
    state["weight"][0] = 7.0
    assert vector.values.tolist() == [1.0, 1.0, 1.0]
    layout.unflatten(vector)["weight"][1] = 7.0
    assert vector.values.tolist() == [1.0, 1.0, 1.0]


def test_resident_model_trains_like_the_model_itself() -> None:
    """The same two steps through views and through ordinary parameters, BatchNorm included."""
    plain, resident = net_with_batch_norm(), ResidentModel(net := net_with_batch_norm(), names(net))
    broadcast = resident.layout.flatten(plain.state_dict())
    resident.load(broadcast)
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for model in (plain, resident.model):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
    after = resident.layout.flatten(plain.state_dict())
    assert resident.read().values.tobytes() == after.values.tobytes()
    assert resident.read().counters.tolist() == [2]
    assert resident.read().values.tobytes() != broadcast.values.tobytes()
    resident.load(broadcast)
    assert resident.read().values.tobytes() == broadcast.values.tobytes()
    assert net.state_dict()["1.num_batches_tracked"] == 0


def test_resident_model_takes_read_only_broadcasts() -> None:
    """Arrays of the object store are read-only, and torch warns about those."""
    resident = ResidentModel(net := net_with_batch_norm(), names(net))
    broadcast = resident.layout.flatten(net.state_dict())
    broadcast.values.flags.writeable = broadcast.counters.flags.writeable = False
    resident.load(broadcast)
    assert resident.read().values.tobytes() == broadcast.values.tobytes()


def test_a_buffer_that_is_not_in_the_state_dict_may_travel() -> None:
    """The offset of SAM's logits is one: no released checkpoint has it."""
    net = nn.Linear(1, 1)
    net.register_buffer("offset", torch.tensor([21.5]), persistent=False)
    resident = ResidentModel(net, ("weight", "offset"))
    assert resident.read().values.tolist() == [net.weight.item(), 21.5]
    resident.load(FlatState(values=np.float32([1.0, 2.0]), counters=np.empty(0, np.int64)))
    assert (net.weight.item(), net.offset.item()) == (1.0, 2.0)


def names(net: nn.Module) -> tuple[str, ...]:
    return tuple(net.state_dict())
