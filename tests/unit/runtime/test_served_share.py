"""What of the synthetic set reaches a client, and one pass over it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dsfedmed_ray.data.synthetic_samples import to_table, write_synthetic
from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.records import SyntheticSample
from dsfedmed_ray.runtime.served_share import ServedDistillation, ServedShare, distil_share

CLIENTS = ["east", "west", "east", "west", "east"]


@pytest.fixture
def order(tmp_path: Path) -> ServedDistillation:
    """Five samples of 8 pixels; sample ``i`` is painted with ``i`` and its target is ``i``."""
    samples = [
        SyntheticSample(
            sample_id=str(i),
            image=np.full((8, 8, 3), i, np.uint8),
            mask=np.full((8, 8, 1), i % 2, np.uint8),
            client=client,
            mask_origin="client",
            style_origin="client",
            seed=0,
        )
        for i, client in enumerate(CLIENTS)
    ]
    write_synthetic(to_table(samples), tmp_path / "all.parquet")
    targets = np.arange(5, dtype=np.float16)[:, None, None, None] * np.ones((1, 1, 8, 8))
    np.save(tmp_path / "targets.npy", targets.astype(np.float16))
    return ServedDistillation(
        synthetic=tmp_path,
        targets=tmp_path / "targets.npy",
        kept=(0, 1, 4),
        epoch=0,
        config=Distillation(batch_size=2, mutual=False, placement="clients"),
    )


def test_a_share_is_what_the_clients_own_generator_painted(order: ServedDistillation) -> None:
    """East's are 0, 2 and 4; of the kept 0, 1 and 4 these are its first and its last."""
    share = ServedShare.of(order, "east")
    assert share.rows == (0, 2, 4)
    assert share.pairs.images[:, 0, 0, 0].tolist() == [0, 2, 4]
    assert share.targets[:, 0, 0, 0].tolist() == [0, 2, 4]
    assert share.kept_positions(order.kept).tolist() == [0, 2]
    assert sum(part.nbytes for part in share.payload) == 3 * 64 * (3 + 1 + 2)


def test_a_pass_counts_its_samples_and_repeats_to_the_bit(order: ServedDistillation) -> None:
    share = ServedShare.of(order, "west")
    states = []
    for _ in range(2):
        model = UNetConfig(channels=(2, 4), num_res_units=0).build(
            num_structures=1, image_size=8, seed=0
        )
        before = [value.clone() for value in model.trainable_state().values()]
        _, num_samples = distil_share(model, share, order, torch.device("cpu"), 0, "distil", 1)
        states.append(model.trainable_state())
        assert num_samples == 1
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(
        not torch.equal(old, new) for old, new in zip(before, states[0].values(), strict=True)
    )
