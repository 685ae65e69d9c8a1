"""What clients keep, and its mean, by hand."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.learning.aggregation import FlatState, StateLayout
from dsfedmed_ray.methods.local_norms import (
    NORMS_FILE,
    collect_norms,
    read_site_norms,
    save_site_norms,
)

LAYOUT = StateLayout.of(
    {"norm.weight": torch.zeros(2), "norm.num_batches_tracked": torch.tensor(0)}
)


class Pool:
    """Client ``k`` kept a weight of ``[k, 2 k]`` and has seen ``k`` batches."""

    def client_name(self, client: int) -> str:
        return f"site_{client}"

    def map(self, method: str, clients: Sequence[int], round_index: int) -> Iterator[Any]:
        assert (method, round_index) == ("kept_state", 5)
        for client in reversed(clients):
            yield (
                client,
                FlatState(np.array([client, 2 * client], np.float32), np.array([client], np.int64)),
            )


def test_the_mean_is_weighted_and_counters_are_the_largest() -> None:
    """Clients 1, 2 and 4 with 10, 30 and 40 pairs: (10 + 60 + 160) / 80 = 2.875."""
    pool: Any = Pool()
    weights = {1: 10, 2: 30, 4: 40}
    mean, kept, sent = collect_norms(
        pool,
        [1, 2, 4],
        LAYOUT,
        round_index=5,
        num_train=lambda client: weights[client],
        num_scored=3,
        stage="train_federated",
    )
    assert mean["norm.weight"].tolist() == [2.875, 5.75]
    assert int(mean["norm.num_batches_tracked"]) == 4
    assert {site: state["norm.weight"].tolist() for site, state in kept.items()} == {
        "site_1": [1.0, 2.0],
        "site_2": [2.0, 4.0],
    }
    one = payload_bytes(FlatState(np.zeros(2, np.float32), np.zeros(1, np.int64)))
    assert [(line.client, line.what, line.num_bytes) for line in sent] == [
        (f"site_{client}", "norm_state", one) for client in (1, 2, 4)
    ]


def test_site_norms_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_site_norms(tmp_path) == {}
    norms = {"a/b": {"x.weight": torch.ones(1)}, "c": {"x.weight": torch.zeros(1)}}
    save_site_norms(norms, tmp_path / NORMS_FILE)
    assert read_site_norms(tmp_path) == norms
