"""The linear codec."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.latent_codec import LinearCodec


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_all_components_lose_nothing(images: Tensor) -> None:
    """48 components of 4 x 4 x 3 patches are all there are."""
    codec = LinearCodec(patch_size=4, latent_channels=48)
    assert codec.fit(images) == pytest.approx(1.0)
    assert torch.allclose(codec.decode(codec.encode(images)), images, atol=1e-4)


def test_latents_have_unit_energy_and_are_linear(images: Tensor) -> None:
    codec = LinearCodec(patch_size=4, latent_channels=12)
    kept = codec.fit(images)
    latents = codec.encode(images)
    assert latents.shape == (6, 12, 8, 8)
    assert 0 < kept < 1
    assert latents.square().mean().item() == pytest.approx(1.0, abs=1e-3)
    difference = codec.encode(images[:1] - images[1:2])
    assert torch.allclose(difference, latents[:1] - latents[1:2], atol=1e-4)


def test_projection_is_idempotent(images: Tensor) -> None:
    codec = LinearCodec(patch_size=4, latent_channels=12)
    codec.fit(images)
    once = codec.decode(codec.encode(images))
    assert torch.allclose(codec.decode(codec.encode(once)), once, atol=1e-4)


def test_folder_round_trip(images: Tensor, tmp_path: Path) -> None:
    codec = LinearCodec(patch_size=4, latent_channels=12, whitening=0.5)
    codec.fit(images)
    codec.save_pretrained(tmp_path)
    read = LinearCodec.from_pretrained(tmp_path)
    assert torch.equal(read.encode(images), codec.encode(images))


def test_too_few_patches() -> None:
    with pytest.raises(ConfigurationError, match="4 patches cannot fix 192 components"):
        LinearCodec().fit(torch.zeros(1, 3, 16, 16))
