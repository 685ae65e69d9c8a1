"""The ledger's sizes against the objects that Ray's store really holds."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dsfedmed_ray.accounting.communication import payload_bytes

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    import ray

    ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20)
    yield ray
    ray.shutdown()


@pytest.mark.parametrize(
    "payload",
    [
        np.arange(100_000, dtype=np.float32),
        {f"layer{i}.weight": np.ones((32, 32, 3), np.float32) for i in range(24)},
        {"weight": torch.ones(300, 300), "bias": torch.ones(300)},
        b"x" * 300_000,
    ],
    ids=["flat state", "state by name", "tensors", "bytes"],
)
def test_size_in_the_object_store(cluster: Any, payload: Any) -> None:
    """Ray adds alignment and a header: under one percent of payloads of this size."""
    reference = cluster.put(payload)
    stored = cluster.experimental.get_object_locations([reference])[reference]["object_size"]
    assert payload_bytes(payload) == pytest.approx(stored, rel=0.01)
