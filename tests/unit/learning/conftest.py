"""A toy backbone folder and a toy client."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dsfedmed_ray.models.generator import EmbeddedGeneratorConfig
from dsfedmed_ray.models.procedural_images import draw_public_pair
from dsfedmed_ray.records import Sample


@pytest.fixture(scope="session")
def toy_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained backbone of 16 channels, in the shipped folder format."""
    from dsfedmed_ray.models.tiny_diffusion import new_tiny_diffusion

    folder = tmp_path_factory.mktemp("backbone")
    parts = new_tiny_diffusion(0, block_channels=(16, 16))
    parts.codec.fit(torch.randn(20, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2)
    parts.save(folder)
    return folder


@pytest.fixture
def toy_config(toy_backbone: Path) -> Callable[..., EmbeddedGeneratorConfig]:
    """Settings of toy size; fields may be overridden."""

    def make(**changes: object) -> EmbeddedGeneratorConfig:
        settings: dict[str, object] = {
            "folder": str(toy_backbone),
            "steps": 2,
            "batch_size": 2,
            "num_inference_steps": 2,
            "images_per_job": 3,
            "precision": "fp32",
        }
        return EmbeddedGeneratorConfig(**{**settings, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def pairs() -> list[Sample]:
    """Five drawn pairs of 32 pixels."""
    drawn = [draw_public_pair(seed, size=32) for seed in range(5)]
    return [
        Sample(sample_id=f"pair-{index}", image=image, mask=mask)
        for index, (image, mask) in enumerate(drawn)
    ]
