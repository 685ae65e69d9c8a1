"""Augmentation of a batch, drawn from a given generator.

Geometry and light are separate: geometry moves the mask as well, light touches the image alone.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dsfedmed_ray.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is varied when a batch is drawn.

    Attributes:
        dihedral: rotations by quarter turns and mirror images.
        brightness: largest shift of an image, in units of its full range.
        contrast: largest relative change of contrast around the image's mean.
        gamma: largest relative change of the exponent, as ``exp(uniform(-g, g))``.
        colour: largest relative gain of a single channel.
    """

    dihedral: bool = True
    brightness: float = 0.15
    contrast: float = 0.3
    gamma: float = 0.4
    colour: float = 0.1

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "gamma", "colour"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigurationError(
                    f"augmentation.{name} is {getattr(self, name)}; allowed: 0 (off) to below 1"
                )


def draw_turn(generator: Generator) -> int:
    """One of the eight symmetries of the square, 0 (identity) to 7."""
    return int(torch.randint(8, (), generator=generator))


def turn(
    batch: Float[Tensor, "batch channels size size"], symmetry: int
) -> Float[Tensor, "batch channels size size"]:
    """Applies a symmetry: ``symmetry % 4`` quarter turns, then a mirror image for 4 to 7."""
    turned = torch.rot90(batch, symmetry % 4, dims=(2, 3))
    return turned.flip(3) if symmetry >= 4 else turned


def turn_back(
    batch: Float[Tensor, "batch channels size size"], symmetry: int
) -> Float[Tensor, "batch channels size size"]:
    """Undoes :func:`turn`."""
    mirrored = batch.flip(3) if symmetry >= 4 else batch
    return torch.rot90(mirrored, -(symmetry % 4), dims=(2, 3))


def vary_light(
    images: Float[Tensor, "batch 3 height width"], config: Augmentation, generator: Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Random gamma, contrast, brightness and channel gain for each image; stays in [0, 1]."""
    batch = images.shape[0]

    def uniform(limit: float, channels: int = 1) -> Tensor:
        draw = torch.rand(batch, channels, 1, 1, generator=generator) * 2.0 - 1.0
        return (draw * limit).to(images)

    varied = images.clamp(1e-4, 1.0) ** uniform(config.gamma).exp()
    mean = varied.mean(dim=(1, 2, 3), keepdim=True)
    varied = mean + (varied - mean) * (1.0 + uniform(config.contrast))
    varied = varied * (1.0 + uniform(config.colour, channels=3)) + uniform(config.brightness)
    return varied.clamp(0.0, 1.0)
