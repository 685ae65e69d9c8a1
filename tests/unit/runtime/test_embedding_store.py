"""Embeddings are computed once and read back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dsfedmed_ray.errors import CheckpointError
from dsfedmed_ray.models.segmenter import FoundationSegmenter
from dsfedmed_ray.records import Sample
from dsfedmed_ray.runtime.embedding_store import (
    Embeddings,
    arithmetic_name,
    image_key,
    stored_embeddings,
)


class CountingFoundation(FoundationSegmenter):
    """Embeds an image as its mean colour, and counts the images."""

    def __init__(self, fingerprint: str = "a" * 64) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)
        self.num_embedded = 0
        self._fingerprint = fingerprint

    def embed(self, images: Tensor) -> Tensor:
        self.num_embedded += len(images)
        return images.mean(dim=(2, 3))

    def features(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    def decode(self, embeddings: Tensor) -> Tensor:
        logits: Tensor = self.head(embeddings)[:, :, None, None]
        return logits

    def shift_logits(self, shift: Tensor) -> None:
        self.head.bias.data += shift

    def frozen_fingerprint(self) -> str:
        return self._fingerprint


@pytest.fixture
def pool() -> list[Sample]:
    random = np.random.default_rng(0)
    return [
        Sample(
            sample_id=f"s{index}",
            image=random.integers(0, 256, (4, 4, 3), dtype=np.uint8),
            mask=np.zeros((4, 4, 1), np.uint8),
        )
        for index in range(5)
    ]


def stored(model: CountingFoundation, pool: list[Sample], folder: Path) -> Embeddings:
    return stored_embeddings(model, pool, folder, device=torch.device("cpu"))


def test_they_are_computed_once(tmp_path: Path, pool: list[Sample]) -> None:
    model = CountingFoundation()
    first, second = stored(model, pool, tmp_path), stored(model, pool, tmp_path)
    assert model.num_embedded == 5
    assert len(first) == len(second) == 5
    expected = torch.from_numpy(pool[3].image / 255).mean(dim=(0, 1))
    row = second[torch.tensor([3])]
    assert row.dtype == torch.float16
    assert torch.allclose(row[0].double(), expected, atol=1e-3)
    assert torch.equal(first[torch.tensor([4, 0])], second[torch.tensor([4, 0])])


def test_a_sample_more_is_one_image_more(tmp_path: Path, pool: list[Sample]) -> None:
    """Four, then five in another order, then a pool whose third image changed: 4 + 1 + 1."""
    model = CountingFoundation()
    first = stored(model, pool[:4], tmp_path)
    assert model.num_embedded == 4
    second = stored(model, pool[::-1], tmp_path)
    assert model.num_embedded == 5
    assert torch.equal(first[torch.arange(4)], second[torch.tensor([4, 3, 2, 1])])
    image = pool[2].image.copy()
    image[0, 0, 0] ^= 1
    third = stored(model, [*pool[:2], replace(pool[2], image=image), *pool[3:]], tmp_path)
    assert model.num_embedded == 6
    others = torch.tensor([0, 1, 3])
    assert torch.equal(first[others], third[others])


def test_rows_do_not_depend_on_what_was_missing(tmp_path: Path, pool: list[Sample]) -> None:
    """The same bits whether five images are embedded together or one after three after one."""
    together = stored(CountingFoundation(), pool, tmp_path / "together")
    for end in (1, 4, 5):
        apart = stored(CountingFoundation(), pool[:end], tmp_path / "apart")
    assert torch.equal(apart[torch.arange(5)], together[torch.arange(5)])


def test_another_encoder_is_computed_anew(tmp_path: Path, pool: list[Sample]) -> None:
    stored(CountingFoundation(), pool, tmp_path)
    other = CountingFoundation("b" * 64)
    stored(other, pool, tmp_path)
    assert other.num_embedded == 5


def test_an_image_is_its_shape_and_pixels() -> None:
    """Two of 12 zeros and other shapes, and one of twelve ones."""
    images = [np.zeros((2, 2, 3)), np.zeros((4, 1, 3)), np.ones((2, 2, 3))]
    assert len({image_key(image.astype(np.uint8)) for image in images}) == 3
    assert image_key(images[0].astype(np.uint8)) == image_key(np.zeros((2, 2, 3), np.uint8))


def test_without_a_seal_they_are_computed_again(tmp_path: Path, pool: list[Sample]) -> None:
    """The process ended between the rows and their seal."""
    model = CountingFoundation()
    stored(model, pool, tmp_path)
    next(tmp_path.rglob("*.json")).unlink()
    stored(model, pool, tmp_path)
    assert model.num_embedded == 10


@pytest.mark.parametrize("size", [-8, 10, 0])
def test_a_damaged_file_is_named(size: int, tmp_path: Path, pool: list[Sample]) -> None:
    model = CountingFoundation()
    stored(model, pool, tmp_path)
    path = next(tmp_path.rglob("*.npy"))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=rf"{path.name} .*damaged.*; delete it"):
        stored(model, pool, tmp_path)


def test_each_arithmetic_has_a_folder_of_its_own() -> None:
    """Device kind, number format and, on CPUs, threads decide bits; which of several GPUs not."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
    names = [
        arithmetic_name("fp32", cpu, 1),
        arithmetic_name("fp32", cpu, 2),
        arithmetic_name("bf16", cpu, 1),
        arithmetic_name("fp32", gpu, 1),
        arithmetic_name("fp16", gpu, 1),
    ]
    assert len(set(names)) == 5
    assert names[1].startswith("cpu-2-torch.float32-")
    assert names[3] == arithmetic_name("fp32", torch.device("cuda:0"), 2)
