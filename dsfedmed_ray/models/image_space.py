"""Between images and what the diffusion network sees: latents, control and tokens.

Two spaces share one interface. The painted space (the shipped tiny backbone) diffuses the residual
over a painted mask; the autoencoder space (Stable Diffusion) diffuses the image's own latents.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dsfedmed_ray.models.layout import Layout, mean_layout, spread_layout
from dsfedmed_ray.models.painting import (
    AREA,
    CHROMA,
    COARSE,
    DEVIATION,
    FAR,
    FINE,
    FIRST_STRUCTURE,
    NUM_FEATURES,
    PERIMETER,
    SMALLEST_DEVIATION,
    WHOLE,
    Painting,
    chroma,
    label_map,
    measure_style,
    nearness,
    paint,
    region_weights,
    spread,
    with_shape_of,
)
from dsfedmed_ray.models.pose import POSE_SIZE, image_poses, join_style, moved, split_style

if TYPE_CHECKING:  # diffusers takes seconds to import
    from dsfedmed_ray.models.latent_codec import LinearCodec

TOKEN_SIZE = 16
CLASS_SIZE = 3 * TOKEN_SIZE
NUM_MAPS = 1 + 4
"""Control channels beside the painting's latents and the label map: deviation and places."""
STRUCTURES = FIRST_STRUCTURE - 1
"""Where the structures start among the regions, which have no whole image before them."""
LARGEST_LATENT = 8.0
"""Residuals of bright debris on a dark ground reach 30 deviations; they would rule the loss."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the networks and the decoder are told about a batch.

    Attributes:
        control: input of the ControlNet, ``[batch, channels, rows, columns]``.
        tokens: input of cross-attention, ``[batch, tokens, size]``.
        class_labels: input of the class embedding, ``[batch, size]``; None where the U-Net has
            none.
        painting: the painted image; None where residuals are not used.
        fine: root mean square of the detail that latents lose, ``[batch, 1, height, width]``.
        chroma: root mean square of the residual's colour, ``[batch, 1, 1, 1]``.
    """

    control: Tensor
    tokens: Tensor
    class_labels: Tensor | None = None
    painting: Painting | None = None
    fine: Tensor | None = None
    chroma: Tensor | None = None


class ImageSpace(Protocol):
    """Encodes images and conditions, decodes latents. Images in [0, 1], masks 0 and 1."""

    def style_size(self, num_structures: int) -> int:
        """Numbers that describe one image's style; 0 where styles are not used."""
        ...

    def measure(
        self,
        images: Float[Tensor, "batch 3 height width"],
        masks: Float[Tensor, "batch structures height width"],
    ) -> Float[Tensor, "batch style"]:
        """The style of each image."""
        ...

    def condition(
        self,
        masks: Float[Tensor, "batch structures height width"],
        style: Float[Tensor, "batch style"],
        layout: Layout | None = None,
    ) -> Condition:
        """The condition of each mask in its style, over what the client's images share."""
        ...

    def moved(
        self, style: Float[Tensor, "batch style"], moves: Float[Tensor, "batch 2 3"]
    ) -> Float[Tensor, "batch style"]:
        """The styles of images after an affine move, see :func:`~.pose.moved`."""
        ...

    def layout(
        self,
        images: Float[Tensor, "count 3 height width"],
        masks: Float[Tensor, "count structures height width"],
        grid: int,
    ) -> Layout | None:
        """What these images share, at ``grid`` places a side; None where layouts are not used."""
        ...

    def encode(
        self, images: Float[Tensor, "batch 3 height width"], condition: Condition
    ) -> Float[Tensor, "batch latents rows columns"]:
        """Latents of about unit variance."""
        ...

    def decode(
        self,
        latents: Float[Tensor, "batch latents rows columns"],
        condition: Condition,
        grain: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """Images; ``grain`` is white noise for the detail that latents lose."""
        ...


class PaintedSpace:
    """Residuals over a painting, in the latents of a linear codec.

    ``z = encode((image - painting) / deviation)``. Dividing by each region's own deviation makes
    dim and bright, smooth and rough clients look alike to the network.

    Args:
        codec: the shipped codec.
    """

    def __init__(self, codec: "LinearCodec") -> None:
        self.codec = codec

    def style_size(self, num_structures: int) -> int:
        """Tokens (whole, far and near ground, structures) times features, and the pose."""
        return (FIRST_STRUCTURE + num_structures) * NUM_FEATURES + POSE_SIZE

    def measure(
        self,
        images: Float[Tensor, "batch 3 height width"],
        masks: Float[Tensor, "batch structures height width"],
    ) -> Float[Tensor, "batch style"]:
        """Region statistics and pose, flattened."""
        statistics = measure_style(images, region_weights(masks), self._reconstruct)
        return join_style(statistics.flatten(1), image_poses(images))

    def condition(
        self,
        masks: Float[Tensor, "batch structures height width"],
        style: Float[Tensor, "batch style"],
        layout: Layout | None = None,
    ) -> Condition:
        """Painting, label map and style tokens."""
        regions = region_weights(masks)
        statistics, poses = split_style(style)
        styles = with_shape_of(statistics.reshape(style.shape[0], -1, NUM_FEATURES), regions)
        painting = paint(regions, styles)
        fine = spread(styles[:, 1:, FINE : FINE + 1], regions)
        if layout is not None:
            ground = regions[:, :STRUCTURES].sum(dim=1, keepdim=True)
            mean, factor = spread_layout(layout, poses, (masks.shape[2], masks.shape[3]))
            factor = 1 - ground * (1 - factor)
            fine = fine * factor
            painting = Painting(
                colour=(painting.colour + painting.deviation * ground * mean).clamp(0, 1),
                deviation=painting.deviation * factor,
            )
        patch = self.codec.patch_size
        log_deviation = (painting.deviation / 0.1).log()
        control = torch.cat(
            [
                self.codec.encode((painting.colour - 0.5) / 0.25),
                functional.pixel_unshuffle(label_map(masks), patch) * 2 - 1,
                functional.avg_pool2d(log_deviation, patch),
                places(masks, patch),
            ],
            dim=1,
        )
        tokens = style_tokens(styles)
        labels = [tokens[:, WHOLE], tokens[:, FAR], tokens[:, FIRST_STRUCTURE:].mean(dim=1)]
        return Condition(
            control=control,
            tokens=tokens,
            class_labels=torch.cat(labels, dim=1),
            painting=painting,
            fine=fine,
            chroma=styles[:, WHOLE, CHROMA].view(-1, 1, 1, 1),
        )

    def moved(
        self, style: Float[Tensor, "batch style"], moves: Float[Tensor, "batch 2 3"]
    ) -> Float[Tensor, "batch style"]:
        """The same statistics in another pose."""
        statistics, poses = split_style(style)
        return join_style(statistics, moved(poses, moves))

    def layout(
        self,
        images: Float[Tensor, "count 3 height width"],
        masks: Float[Tensor, "count structures height width"],
        grid: int,
    ) -> Layout | None:
        """Mean and deviation of the residuals, then the latents' energies over that layout."""
        style = self.measure(images, masks)
        _, poses = split_style(style)
        painting = _painting(self.condition(masks, style))
        mean, factor = mean_layout((images - painting.colour) / painting.deviation, poses, grid)
        energies = torch.ones(self.codec.scale.shape[0], device=images.device)
        layout = Layout(mean=mean, factor=factor, spectrum=energies)
        latents = self.encode(images, self.condition(masks, style, layout))
        return replace(layout, spectrum=latents.square().mean(dim=(0, 2, 3)).sqrt())

    def encode(
        self, images: Float[Tensor, "batch 3 height width"], condition: Condition
    ) -> Float[Tensor, "batch latents rows columns"]:
        """Latents of the scaled residual."""
        painting = _painting(condition)
        latents = self.codec.encode((images - painting.colour) / painting.deviation)
        return latents.clamp(-LARGEST_LATENT, LARGEST_LATENT)

    def decode(
        self,
        latents: Float[Tensor, "batch latents rows columns"],
        condition: Condition,
        grain: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """Painting plus residual, plus noise where the codec drops detail.

        A residual never has more colour than its style says, so grey clients stay grey.
        """
        painting = _painting(condition)
        residual = painting.deviation * self.codec.decode(latents)
        if condition.fine is not None:
            residual = residual + condition.fine * (grain - self._reconstruct(grain))
        if condition.chroma is not None:
            colour = chroma(residual)
            drawn = colour.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
            residual = residual - colour * (1 - condition.chroma / drawn.clamp(min=1e-6)).relu()
        return (painting.colour + residual).clamp(0, 1)

    def _reconstruct(self, residual: Tensor) -> Tensor:
        return self.codec.decode(self.codec.encode(residual))


def _painting(condition: Condition) -> Painting:
    if condition.painting is None:
        raise ValueError("a painted space needs a condition that it made itself")
    return condition.painting


def places(
    masks: Float[Tensor, "batch structures height width"], patch: int
) -> Float[Tensor, "batch 4 rows columns"]:
    """Where a latent position is: row, column (-1 to 1), distance from the centre, nearness.

    Convolutions do not know; organs that always lie in the same place need it.
    """
    batch, _, height, width = masks.shape
    rows = torch.linspace(-1, 1, height // patch, device=masks.device).view(1, 1, -1, 1)
    columns = torch.linspace(-1, 1, width // patch, device=masks.device).view(1, 1, 1, -1)
    shape = (batch, 1, height // patch, width // patch)
    radius = (rows.square() + columns.square()).sqrt()
    plane = [part.expand(shape) for part in (rows, columns, radius)]
    return torch.cat([*plane, functional.avg_pool2d(nearness(masks), patch)], dim=1)


def style_tokens(
    regions: Float[Tensor, "batch tokens features"],
) -> Float[Tensor, "batch tokens token_size"]:
    """Scales the features to about unit size and marks each region with its place."""
    batch, count, _ = regions.shape
    colours = (regions[:, :, :DEVIATION] - 0.25) * 4
    energies = regions[:, :, [DEVIATION, COARSE, FINE]].clamp(min=SMALLEST_DEVIATION / 2)
    energies = (energies / 0.1).log()
    shape = regions[:, :, [AREA, PERIMETER]].clamp(min=0).sqrt() * 2
    place = torch.linspace(-1, 1, count, device=regions.device).expand(batch, count).unsqueeze(2)
    whole = torch.zeros_like(place)
    whole[:, 0] = 1
    tokens = torch.cat([colours, energies, shape, place, whole], dim=2)
    return functional.pad(tokens, (0, TOKEN_SIZE - tokens.shape[2]))
