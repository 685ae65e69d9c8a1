"""The public images that the backbone is trained on, drawn anew little by little."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from dsfedmed_ray.models.procedural_images import draw_public_pair
from dsfedmed_ray.seeding import derive_seed


@dataclass(kw_only=True)
class PublicPool:
    """Drawn pairs; which ones it holds is a pure function of the step.

    Attributes:
        seed: of the drawings.
        image_size: side, pixels.
        size: pairs held.
        redrawn_per_step: pairs replaced at each step, the oldest first.
        step: the step it is at.
        images: ``uint8 [height, width, 3]`` each.
        masks: ``uint8 [height, width, 1]`` each, 0 and 1.
    """

    seed: int
    image_size: int
    size: int
    redrawn_per_step: int
    step: int = 0
    images: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        for slot in range(self.size):
            image, mask = self._draw(slot)
            self.images.append(image)
            self.masks.append(mask)

    def _draw(self, slot: int) -> tuple[Tensor, Tensor]:
        replaced = self.step * self.redrawn_per_step
        version = max(0, -(-(replaced - slot) // self.size))
        seed = derive_seed(self.seed, "public_pool", slot + version * self.size)
        image, mask = draw_public_pair(seed, size=self.image_size)
        return torch.from_numpy(image), torch.from_numpy(mask)

    def advance(self) -> None:
        """Moves to the next step: the oldest images are drawn anew."""
        first = self.step * self.redrawn_per_step
        self.step += 1
        for count in range(self.redrawn_per_step):
            slot = (first + count) % self.size
            self.images[slot], self.masks[slot] = self._draw(slot)

    def batch(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Augmented pairs, float in [0, 1], channels first."""
        slots = torch.randint(len(self.images), (count,), generator=random).tolist()
        pairs = [_augment(self.images[slot], self.masks[slot], random) for slot in slots]
        return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])


def _augment(image: Tensor, mask: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Dihedral, zoom, channel order and inversion."""
    size = image.shape[0]
    both = torch.cat([image, mask], dim=2).permute(2, 0, 1).float()
    both[:3] /= 255
    turns, flip, zoom, invert = torch.rand(4, generator=random).tolist()
    both = torch.rot90(both, int(turns * 4), (1, 2))
    if flip < 0.5:
        both = both.flip(2)
    if zoom < 0.4:
        side = int(size * (0.6 + zoom))
        top, left = (torch.rand(2, generator=random) * (size - side + 1)).long().tolist()
        crop = both[None, :, top : top + side, left : left + side]
        both = functional.interpolate(crop, (size, size), mode="bilinear")[0]
    colours = both[:3][torch.randperm(3, generator=random)]
    if invert < 0.3:
        colours = 1 - colours
    return colours, (both[3:] > 0.5).float()
