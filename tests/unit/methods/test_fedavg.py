"""Which clients a round draws, and when it validates."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.methods.fedavg import FederatedRounds, FederatedTraining


class OneWeight(nn.Module):
    def trainable_state(self) -> dict[str, torch.Tensor]:
        return {"weight": torch.zeros(1)}


def rounds(population: int, seed: int = 0, **schedule: Any) -> FederatedRounds:
    context: Any = SimpleNamespace(
        seed=seed,
        split=SimpleNamespace(num_clients=population),
        lightweight=None,
        build=lambda _: OneWeight(),
    )
    pool: Any = None
    return FederatedRounds(context, pool, FederatedTraining(**schedule))


@pytest.mark.parametrize("wanted", [None, 5, 9])
def test_without_a_smaller_number_all_take_part(wanted: int | None) -> None:
    assert rounds(5, clients_per_round=wanted)._sampled(3) == [0, 1, 2, 3, 4]


def test_a_sample_is_ascending_without_repetition_and_of_its_round() -> None:
    draws = rounds(1000, clients_per_round=50)
    first = draws._sampled(0)
    assert first == sorted(set(first))
    assert len(first) == 50
    assert first == rounds(1000, clients_per_round=50)._sampled(0)
    assert first != draws._sampled(1)
    assert first != rounds(1000, seed=1, clients_per_round=50)._sampled(0)


def test_samples_span_a_large_population() -> None:
    """200 of a million: each tenth of the ids is met; none would be with odds of 0.9**200."""
    clients = rounds(10**6, clients_per_round=200)._sampled(7)
    assert {client // 10**5 for client in clients} == set(range(10))
    assert all(type(client) is int for client in clients)


@pytest.mark.parametrize(
    ("every", "validated"), [(0, []), (1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (9, [4])]
)
def test_validation_comes_when_due_and_after_the_last_round(
    every: int, validated: list[int]
) -> None:
    federated = rounds(3, rounds=5, validate_every=every)
    assert [unit for unit in range(5) if federated._validates(unit)] == validated


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, r"federated\.rounds is 0; at least 1"),
        ({"clients_per_round": 0}, r"clients_per_round is 0; at least 1, or null for all"),
        ({"validate_every": -1}, r"validate_every is -1; 0 \(never\) or more"),
        ({"patience": 0}, r"patience is 0; at least 1"),
        ({"patience": 3, "validate_every": 0}, r"patience is 3; .* with validate_every above 0"),
    ],
)
def test_impossible_schedules(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FederatedTraining(**changes)
