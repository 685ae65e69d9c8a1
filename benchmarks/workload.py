"""The benchmark's workloads: a U-Net, plain torch, random images from (seed, client)."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


def _block(inputs: int, outputs: int) -> nn.Sequential:
    # Group normalisation has no running buffers, so every framework averages the same entries.
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(1, outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(1, outputs),
        nn.ReLU(inplace=True),
    )


class SmallUNet(nn.Module):
    """Two levels down, two up; 7,697 parameters at width 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _block(3, width), _block(width, 2 * width)
        self.bottom = _block(2 * width, 4 * width)
        self.up_second, self.up_first = _block(6 * width, 2 * width), _block(3 * width, width)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.first(images)
        middle = self.second(functional.max_pool2d(fine, 2))
        coarse = self.bottom(functional.max_pool2d(middle, 2))
        joined = torch.cat([functional.interpolate(coarse, scale_factor=2), middle], 1)
        joined = torch.cat(
            [functional.interpolate(self.up_second(joined), scale_factor=2), fine], 1
        )
        return self.out(self.up_first(joined))


def quickstart_unet(num_structures: int, image_size: int) -> nn.Module:
    """MONAI's U-Net of conf/lightweight/unet.yaml, whose numbers are the defaults."""
    root = str(Path(__file__).parent.parent)
    if root not in sys.path:  # in a peer's environment this package is not installed
        sys.path.append(root)
    from dsfedmed_ray.models.unet import UNetConfig

    return UNetConfig().build(num_structures=num_structures, image_size=image_size, seed=0)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one client does in one round.

    Attributes:
        network: ``small``, or the ``quickstart``'s lightweight model.
        num_structures: mask channels.
        image_size: pixels.
        batch_size: images a step, also the client's number of samples.
        steps: SGD steps.
    """

    network: Literal["small", "quickstart"]
    num_structures: int
    image_size: int
    batch_size: int
    steps: int

    def model(self) -> nn.Module:
        """The initial model, the same everywhere."""
        if self.network == "quickstart":
            return quickstart_unet(self.num_structures, self.image_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return SmallUNet(width=4)

    def batch(self, client_id: int) -> tuple[Tensor, Tensor]:
        """The client's data, from its id alone."""
        stream = torch.Generator().manual_seed(1_000_003 + client_id)
        size = (self.batch_size, 3, self.image_size, self.image_size)
        images = torch.randn(size, generator=stream)
        masks = torch.rand((size[0], self.num_structures, *size[2:]), generator=stream) > 0.5
        return images, masks.float()

    def train(self, model: nn.Module, client_id: int) -> float:
        """Local training in place; gives the last loss."""
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        images, masks = self.batch(client_id)
        model.train()
        for _ in range(self.steps):
            optimizer.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(model(images), masks)
            loss.backward()
            optimizer.step()
        return float(loss.detach())


WORKLOADS = {
    "small": Workload(network="small", num_structures=1, image_size=32, batch_size=4, steps=1),
    "large": Workload(network="quickstart", num_structures=3, image_size=64, batch_size=8, steps=5),
}
"""``large`` is a client's round of the quickstart in its model, image size and batch."""
