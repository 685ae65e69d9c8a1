"""When the rounds validate, and when they end."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dsfedmed_ray.methods.fedavg import FederatedRounds
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.runtime.availability import Availability


class OneWeight(nn.Module):
    def trainable_state(self) -> dict[str, torch.Tensor]:
        return {"weight": torch.zeros(1)}


def rounds(**schedule: Any) -> FederatedRounds:
    context: Any = SimpleNamespace(
        seed=0,
        split=SimpleNamespace(num_clients=3, seen_sites=("a", "b", "c")),
        lightweight=None,
        availability=Availability(),
        wire_dtype="float32",
        build=lambda _: OneWeight(),
    )
    pool: Any = None
    return FederatedRounds(context, pool, FederatedTraining(**schedule))


@pytest.mark.parametrize(
    ("every", "validated"), [(0, []), (1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (9, [4])]
)
def test_validation_comes_when_due_and_after_the_last_round(
    every: int, validated: list[int]
) -> None:
    federated = rounds(rounds=5, validate_every=every)
    assert [unit for unit in range(5) if federated._validates(unit)] == validated


@pytest.mark.parametrize(("joins", "finished"), [(None, True), ({"b": 4}, False), ({"b": 3}, True)])
def test_patience_waits_for_every_client(joins: dict[str, int] | None, finished: bool) -> None:
    """The best score is of round 1, two rounds ago; ``b`` joins in round 4 or in this one."""
    federated = rounds(rounds=9, patience=2, joins=joins)
    federated._best.offer(1, 0.5, {})
    federated._last_round = 3
    assert federated.is_finished() is finished


def test_patience_ends_training_after_a_validation_alone() -> None:
    """Best of round 4, patience 3, validated every 5th: over in round 9, not in 7 or 8."""
    federated = rounds(rounds=20, patience=3, validate_every=5)
    federated._best.offer(4, 0.5, {})
    finished = []
    for federated._last_round in range(5, 10):
        finished.append(federated.is_finished())
    assert finished == [False, False, False, False, True]
