"""The lightweight default: MONAI's residual U-Net, about 100,000 parameters."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.monai_import import monai_module
from dsfedmed_ray.models.segmenter import Segmenter, check_prior, logit_of
from dsfedmed_ray.seeding import named_torch_stream

NARROW_CHANNELS = 16
"""oneDNN's own layout fills channels up to sixteen: a convolution to three costs as much as one to
sixteen. With channels last it does not, and a training step takes a fifth less."""


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """MONAI's ``UNet`` in two dimensions, with a stride of 2 between levels.

    Attributes:
        channels: feature channels of each level, the finest first.
        num_res_units: convolutions in each residual unit; 0 means plain convolutions.
        norm: ``instance`` (nothing to average between clients) or ``batch``.
        foreground_prior: probability that the untrained network gives to foreground, in (0, 1).
            Near the true share it saves the hundreds of steps that small structures otherwise
            cost before anything is found (Lin et al. 2017, section 3.3).
    """

    channels: tuple[int, ...] = (8, 16, 32, 64)
    num_res_units: int = 2
    norm: Literal["instance", "batch"] = "instance"
    foreground_prior: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        if len(self.channels) < 2 or min(self.channels) < 1:
            raise ConfigurationError(
                f"lightweight.channels is {self.channels}; give at least two positive numbers"
            )
        if self.num_res_units < 0:
            raise ConfigurationError(
                f"lightweight.num_res_units is {self.num_res_units}; 0 or more are allowed"
            )
        check_prior(self.foreground_prior)
        if self.norm not in ("instance", "batch"):
            raise ConfigurationError(f"lightweight.norm is {self.norm!r}; allowed: instance, batch")

    def build(self, *, num_structures: int, image_size: int, seed: int) -> "UNetSegmenter":
        """Builds the network with weights drawn from ``seed``.

        Raises:
            ConfigurationError: ``image_size`` cannot be halved between all levels.
        """
        num_halvings = len(self.channels) - 1
        if image_size < 1 or image_size % 2**num_halvings:
            raise ConfigurationError(
                f"image_size {image_size} does not fit a U-Net of {len(self.channels)} levels; "
                f"use a multiple of {2**num_halvings} or fewer lightweight.channels"
            )
        unet = monai_module("monai.networks.nets.unet")
        with named_torch_stream(seed, "initialise", "unet"):
            net = unet.UNet(
                spatial_dims=2,
                in_channels=3,
                out_channels=num_structures,
                channels=self.channels,
                strides=(2,) * num_halvings,
                num_res_units=self.num_res_units,
                norm=self.norm,
            )
        return UNetSegmenter(net, self.foreground_prior)


class UNetSegmenter(Segmenter):
    """A convolutional network that maps images to logits of the same size."""

    def __init__(self, net: nn.Module, foreground_prior: float) -> None:
        super().__init__()
        self.net = net
        self._offset = logit_of(foreground_prior)
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.out_channels <= NARROW_CHANNELS:
                module.register_forward_pre_hook(_channels_last_on_cpu)

    def forward(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch structures size size"]:
        """Logits, from images scaled to [-1, 1]."""
        logits: Tensor = self.net(images * 2 - 1)
        return logits + self._offset


def _channels_last_on_cpu(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    (features,) = inputs
    if features.device.type != "cpu":
        return inputs
    return (features.contiguous(memory_format=torch.channels_last),)
