"""Batches of stage 1: private pairs as latents, each under its condition.

A client tunes for hundreds of steps on a few dozen pairs. Their conditions and latents do not
depend on the ControlNet, so each view of a pair (as it is, mirrored, turned) is computed once.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator as RandomGenerator
from torch import Tensor

from dsfedmed_ray.data.cache import BoundedCache
from dsfedmed_ray.models.generator import Generator
from dsfedmed_ray.models.image_space import Condition
from dsfedmed_ray.models.layout import Layout

_KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class TuningBatch:
    """What one step needs.

    Attributes:
        latents: of the images, ``[batch, latents, rows, columns]``.
        masks: 0 and 1, ``[batch, structures, height, width]``.
        condition: of the masks in the images' own styles, without what only decoding needs.
    """

    latents: Tensor
    masks: Tensor
    condition: Condition

    @property
    def num_bytes(self) -> int:
        """Memory of the tensors."""
        parts = (self.latents, self.masks, self.condition.control, self.condition.tokens)
        return sum(part.nbytes for part in parts)


@dataclass(frozen=True)
class View:
    """One look at a pair: which one, mirrored or not, turned by how many quarters."""

    index: int
    flipped: bool = False
    quarters: int = 0


class TuningBatches:
    """Draws batches from a client's pairs.

    Args:
        generator: its settings and image space.
        images: in [0, 1], ``[count, 3, height, width]``, on the generator's device.
        masks: 0 and 1, ``[count, structures, height, width]``, there too.
        layout: what the images share.
    """

    def __init__(
        self, generator: Generator, images: Tensor, masks: Tensor, layout: Layout | None
    ) -> None:
        self._generator = generator
        self._images, self._masks, self._layout = images, masks, layout
        self._kept: BoundedCache[View, TuningBatch] = BoundedCache(
            _KEPT_BYTES, lambda batch: batch.num_bytes
        )

    def draw(self, random: RandomGenerator) -> TuningBatch:
        """``settings.batch_size`` pairs with replacement, flipped or turned, some recoloured."""
        count = self._generator.settings.batch_size
        chosen = torch.randint(len(self._images), (count,), generator=random)
        return joined([self._drawn(int(index), random) for index in chosen])

    def _drawn(self, index: int, random: RandomGenerator) -> TuningBatch:
        settings = self._generator.settings
        flip, turns, jitter = torch.rand(3, generator=random).tolist()
        view = View(
            index,
            flipped=settings.augmentation != "none" and flip < 0.5,
            quarters=int(turns * 4) if settings.augmentation == "dihedral" else 0,
        )
        if jitter < settings.colour_jitter:
            image, mask = seen(self._images[index], self._masks[index], view)
            return self._prepared(jitter_colours(image, random), mask)
        return self._kept.get(
            view, lambda: self._prepared(*seen(self._images[index], self._masks[index], view))
        )

    @torch.no_grad()
    def _prepared(self, image: Tensor, mask: Tensor) -> TuningBatch:
        space = self._generator.space
        images, masks = image[None], mask[None]
        condition = space.condition(masks, space.measure(images, masks), self._layout)
        return TuningBatch(
            latents=space.encode(images, condition),
            masks=masks,
            condition=replace(condition, painting=None, fine=None, chroma=None),
        )


def joined(parts: list[TuningBatch]) -> TuningBatch:
    """One batch of several, in order."""
    conditions = [part.condition for part in parts]
    labels = [part.class_labels for part in conditions if part.class_labels is not None]
    return TuningBatch(
        latents=torch.cat([part.latents for part in parts]),
        masks=torch.cat([part.masks for part in parts]),
        condition=Condition(
            control=torch.cat([part.control for part in conditions]),
            tokens=torch.cat([part.tokens for part in conditions]),
            class_labels=torch.cat(labels) if labels else None,
        ),
    )


def seen(
    image: Float[Tensor, "3 height width"],
    mask: Float[Tensor, "structures height width"],
    view: View,
) -> tuple[Tensor, Tensor]:
    """A pair in a view, image and mask moved alike."""
    if view.flipped:
        image, mask = image.flip(2), mask.flip(2)
    return torch.rot90(image, view.quarters, (1, 2)), torch.rot90(mask, view.quarters, (1, 2))


def jitter_colours(
    image: Float[Tensor, "3 height width"], random: RandomGenerator
) -> Float[Tensor, "3 height width"]:
    """Permuted channels, inversion half the time and another gamma, in [0, 1]."""
    order = torch.randperm(3, generator=random)
    invert, exponent = torch.rand(2, generator=random).tolist()
    image = image[order.to(image.device)]
    image = 1 - image if invert < 0.5 else image
    return image.clamp(0, 1) ** (2.0 ** (exponent * 2 - 1))
