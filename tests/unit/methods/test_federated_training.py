"""Impossible schedules are refused, with the key and the remedy."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.runtime.local_training import LocalTraining

SPLIT: Any = SimpleNamespace(
    num_clients=3, seen_sites=("a", "b", "c"), require_validation=lambda: None
)


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


@pytest.mark.parametrize(
    ("joins", "message"),
    [
        ({"d": 1}, r"joins names 'd', which is not a client; clients: a, b, c"),
        ({"b": 0}, r"joins\.b is 0; rounds count from 0, so allowed: 1 to 3"),
        ({"b": 4}, r"joins\.b is 4; .* allowed: 1 to 3 with method\.federated\.rounds=4"),
        ({"a": 1, "b": 1, "c": 2}, r"joins names every client; one at least"),
    ],
)
def test_impossible_joins(joins: dict[str, int], message: str) -> None:
    model: Any = nn.Module()
    with pytest.raises(ConfigurationError, match=message):
        FederatedTraining(rounds=4, joins=joins).check(model, SPLIT)


def test_local_norms_need_norms() -> None:
    """MONAI's instance normalisation has neither parameters nor statistics."""
    local = LocalTraining(training=SegmentationTraining(), norm_policy="local")
    schedule = FederatedTraining(local=local)
    build = {"num_structures": 1, "image_size": 32, "seed": 0}
    schedule.check(UNetConfig(channels=(4, 8), norm="batch").build(**build), SPLIT)
    with pytest.raises(ConfigurationError, match=r"norm_policy is 'local', .*\(lightweight\.norm"):
        schedule.check(UNetConfig(channels=(4, 8)).build(**build), SPLIT)
