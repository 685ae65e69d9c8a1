"""nnU-Net's planned U-Net through MONAI's ``DynUNet`` (Isensee et al. 2021).

nnU-Net derives a network from a data set's *fingerprint*. Here each client sends five numbers,
never an image: how many pairs it has, the median size of their content and its pixel spacing. The
server merges them and plans one network for everybody. A median over a few pairs says much about
single ones: of one pair it is its size.

What is left out of nnU-Net: deep supervision, sliding windows (a patch is a whole image) and its
own augmentation; the round loop is the same as for every other segmenter, so that rows of a table
differ in the model alone.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.monai_import import monai_module
from dsfedmed_ray.models.segmenter import Segmenter, check_prior, logit_of
from dsfedmed_ray.records import ImageArray, Sample
from dsfedmed_ray.seeding import named_torch_stream

MIN_EDGE_PX = 4
"""nnU-Net does not halve a feature map below this."""
MAX_ANISOTROPY = 2
"""nnU-Net does not halve an axis whose spacing is this much coarser than the finest one's."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Aggregate statistics of images: of one client's, or of a federation's.

    Attributes:
        num_pairs: how many image-mask pairs.
        height_px: median height of the content, pixels of the fitted images.
        width_px: median width of the content.
        row_spacing_mm: distance between rows; only its ratio to the other one matters. Fitting
            keeps an image's aspect, and files do not tell their spacing: 1 unless it is given.
        column_spacing_mm: distance between columns.
    """

    num_pairs: int
    height_px: float
    width_px: float
    row_spacing_mm: float = 1.0
    column_spacing_mm: float = 1.0

    def __post_init__(self) -> None:
        if min(astuple(self)) <= 0:
            raise ConfigurationError(f"{self} holds a number that is not positive; all must be")

    def to_array(self) -> NDArray[np.float64]:
        """The five numbers that leave a client, 40 bytes."""
        return np.array(astuple(self), dtype=np.float64)

    @classmethod
    def from_array(cls, values: NDArray[np.float64]) -> "Fingerprint":
        """What :meth:`to_array` gave."""
        pairs, height, width, row, column = values.tolist()
        return cls(
            num_pairs=int(pairs),
            height_px=height,
            width_px=width,
            row_spacing_mm=row,
            column_spacing_mm=column,
        )


def fingerprint_of(
    samples: Sequence[Sample], *, row_spacing_mm: float = 1.0, column_spacing_mm: float = 1.0
) -> Fingerprint:
    """One client's fingerprint.

    Args:
        samples: its pairs, as loaded: fitted into a square.
        row_spacing_mm: of its scanner, where known.
        column_spacing_mm: likewise.

    Raises:
        ConfigurationError: there is no sample.
    """
    sizes = [content_size(sample.image) for sample in samples]
    height, width = np.median(sizes, axis=0) if sizes else (0, 0)
    return Fingerprint(
        num_pairs=len(sizes),
        height_px=float(height),
        width_px=float(width),
        row_spacing_mm=row_spacing_mm,
        column_spacing_mm=column_spacing_mm,
    )


def content_size(image: ImageArray) -> tuple[int, int]:
    """Rows and columns of an image without the borders of zeros, to which nnU-Net crops.

    Here these are mostly what an image was padded with to make it a square. An image of zeros alone
    keeps its size.
    """
    filled = image.max(axis=2)
    rows, columns = np.flatnonzero(filled.max(axis=1)), np.flatnonzero(filled.max(axis=0))
    if not len(rows):
        return filled.shape[0], filled.shape[1]
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def merge_fingerprints(fingerprints: Sequence[Fingerprint]) -> Fingerprint:
    """The federation's fingerprint: medians over clients, each weighted by its pairs.

    Raises:
        ValueError: there is none.
    """
    if not fingerprints:
        raise ValueError("no fingerprints to merge")
    weights = np.array([fingerprint.num_pairs for fingerprint in fingerprints])
    table = np.stack([fingerprint.to_array() for fingerprint in fingerprints])
    medians = [weighted_median(column, weights) for column in table.T[1:]]
    return Fingerprint.from_array(np.array([weights.sum(), *medians]))


def weighted_median(values: NDArray[np.float64], weights: NDArray[np.int64]) -> float:
    """The smallest value that holds half of the weight together with all below it."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulated, cumulated[-1] / 2)])


@dataclass(frozen=True)
class Plan:
    """A network's shape; its kernels are 3 x 3 throughout.

    Attributes:
        strides: of each level, for rows and columns; the first level keeps the size.
        channels: of each level.
    """

    strides: tuple[tuple[int, int], ...]
    channels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class NnUNetConfig:
    """A U-Net planned from a fingerprint.

    Attributes:
        fingerprint: of the federation, which a run asks its clients for; None plans for content
            that fills the run's images.
        base_channels: channels of the finest level (nnU-Net: 32), doubled at each next one.
        max_channels: upper bound of that (nnU-Net in 2D: 512).
        foreground_prior: probability that the untrained network gives to foreground, in (0, 1),
            as the U-Net's, so that rows differ in the network alone.
    """

    fingerprint: Fingerprint | None = None
    base_channels: int = 32
    max_channels: int = 512
    foreground_prior: float = 0.05

    def __post_init__(self) -> None:
        if not 1 <= self.base_channels <= self.max_channels:
            raise ConfigurationError(
                f"lightweight.base_channels is {self.base_channels}; "
                f"it must be in 1 to max_channels = {self.max_channels}"
            )
        check_prior(self.foreground_prior)

    def plan(self, image_size: int) -> Plan:
        """The network for images of a size.

        Raises:
            ConfigurationError: the images, or what they hold, are too small to be halved twice.
        """
        own = self.fingerprint or Fingerprint(
            num_pairs=1, height_px=image_size, width_px=image_size
        )
        content = (math.ceil(own.height_px), math.ceil(own.width_px))
        strides = plan_strides(content, (own.row_spacing_mm, own.column_spacing_mm))
        if len(strides) < 3:
            raise ConfigurationError(
                f"image_size {image_size} is too small for a planned U-Net (content of "
                f"{content[0]} x {content[1]} pixels); use at least {4 * MIN_EDGE_PX} pixels"
            )
        channels = [min(self.base_channels * 2**i, self.max_channels) for i in range(len(strides))]
        return Plan(tuple(strides), tuple(channels))

    def build(self, *, num_structures: int, image_size: int, seed: int) -> "NnUNetSegmenter":
        """Builds the planned network with weights drawn from ``seed``.

        Raises:
            ConfigurationError: the images are too small.
        """
        plan = self.plan(image_size)
        dynunet = monai_module("monai.networks.nets.dynunet")
        with named_torch_stream(seed, "initialise", "nnunet"):
            net = dynunet.DynUNet(
                spatial_dims=2,
                in_channels=3,
                out_channels=num_structures,
                kernel_size=[3] * len(plan.strides),
                strides=plan.strides,
                upsample_kernel_size=plan.strides[1:],
                filters=plan.channels,
            )
        reduction = np.prod(plan.strides, axis=0)
        halvings = (int(reduction[0]), int(reduction[1]))
        return NnUNetSegmenter(net, halvings, self.foreground_prior)


def plan_strides(
    size_px: tuple[int, int], spacing_mm: tuple[float, float]
) -> list[tuple[int, int]]:
    """NnU-Net's rule for the depth of a network and the strides between its levels.

    Every next level halves the axes that stay at least 4 pixels long and whose spacing is less
    than twice the finest one's; a lone axis is halved only while it is at least 12 pixels long.

    Args:
        size_px: rows and columns of a patch.
        spacing_mm: of its rows and columns.
    """
    sizes, spacings = list(size_px), list(spacing_mm)
    strides = [(1, 1)]
    while True:
        axes = [axis for axis in (0, 1) if sizes[axis] >= 2 * MIN_EDGE_PX]
        finest = min((spacings[axis] for axis in axes), default=0.0)
        axes = [axis for axis in axes if spacings[axis] < MAX_ANISOTROPY * finest]
        if not axes or (len(axes) == 1 and sizes[axes[0]] < 3 * MIN_EDGE_PX):
            return strides
        strides.append((2 if 0 in axes else 1, 2 if 1 in axes else 1))
        for axis in axes:
            sizes[axis] = -(-sizes[axis] // 2)
            spacings[axis] *= 2


class NnUNetSegmenter(Segmenter):
    """A planned network on images of any size: padded to what it can halve, then cut back.

    Args:
        net: the network.
        reduction: how often it divides rows and columns in all.
        foreground_prior: probability that its logits are shifted to.
    """

    def __init__(self, net: nn.Module, reduction: tuple[int, int], foreground_prior: float) -> None:
        super().__init__()
        self._offset = logit_of(foreground_prior)
        self.net = net
        self.reduction = reduction

    def forward(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch structures size size"]:
        """Logits; each image is normalised by its own mean and deviation, as nnU-Net does."""
        deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
        normalised = (images - mean) / deviation.clamp(min=1e-6)
        height, width = images.shape[-2:]
        below, right = -height % self.reduction[0], -width % self.reduction[1]
        logits: Tensor = self.net(functional.pad(normalised, (0, right, 0, below)))
        return logits[..., :height, :width] + self._offset
