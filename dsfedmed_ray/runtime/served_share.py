"""A client's share of the synthetic set, distilled at the client from served targets.

Only images that the client's own generator painted come to it, with their masks and the foundation
model's logits; the foundation model itself stays at the server.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsfedmed_ray.data.synthetic_samples import read_synthetic
from dsfedmed_ray.learning.mutual_distillation import Distillation, PoolLearner
from dsfedmed_ray.learning.segmentation_training import Pairs
from dsfedmed_ray.models.segmenter import Segmenter
from dsfedmed_ray.records import SyntheticSample
from dsfedmed_ray.seeding import named_torch_stream, torch_generator


@dataclass(frozen=True, kw_only=True)
class ServedDistillation:
    """What an epoch of distillation at the clients needs.

    Attributes:
        synthetic: folder of the synthetic set.
        targets: ``.npy`` file, ``float16 [pool, structures, size, size]``: the foundation model's
            logits in the order of :func:`~dsfedmed_ray.data.synthetic_samples.read_synthetic`.
        kept: rows of the pool that were selected for this epoch, ascending.
        epoch: from 0.
        config: losses and batches.
    """

    synthetic: Path
    targets: Path
    kept: tuple[int, ...]
    epoch: int
    config: Distillation


@dataclass(frozen=True, kw_only=True)
class ServedShare:
    """What reached one client.

    Attributes:
        rows: where its samples are in the pool, ascending.
        pairs: their images and masks.
        targets: the foundation model's logits on them.
    """

    rows: tuple[int, ...]
    pairs: Pairs
    targets: NDArray[np.float16]

    @classmethod
    def of(cls, order: ServedDistillation, client: str) -> "ServedShare":
        """The share of a client.

        Raises:
            ValueError: the synthetic set has no sample of this client.
        """
        samples = read_synthetic(order.synthetic)
        rows = rows_of(samples, client)
        targets = np.load(order.targets, mmap_mode="r")[list(rows)]
        return cls(rows=rows, pairs=Pairs.of([samples[row] for row in rows]), targets=targets)

    @property
    def payload(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float16]]:
        """What travels of it, once: images, masks and targets."""
        return self.pairs.images.numpy(), self.pairs.masks.numpy(), self.targets

    def kept_positions(self, kept: tuple[int, ...]) -> Tensor:
        """Where the selected rows are in this share."""
        selected = set(kept)
        return torch.tensor([at for at, row in enumerate(self.rows) if row in selected])


def rows_of(samples: list[SyntheticSample], client: str) -> tuple[int, ...]:
    """Rows of the samples that a client's generator painted."""
    return tuple(row for row, sample in enumerate(samples) if sample.client == client)


def distil_share(
    model: Segmenter,
    share: ServedShare,
    order: ServedDistillation,
    device: torch.device,
    *stream: int | str,
) -> tuple[float, int]:
    """One pass of the lightweight model over the selected part of a share.

    Args:
        model: trained in place, with an optimiser that starts anew.
        share: the client's.
        order: of this epoch.
        device: where the model is.
        *stream: the name of this client's random streams in this epoch.

    Returns:
        The mean loss and the number of samples.
    """
    learner = PoolLearner(
        model,
        share.pairs.images,
        share.pairs.masks,
        learning_rate=order.config.lightweight_learning_rate,
        config=order.config,
        augmentation=order.config.augmentation,
        device=device,
    )
    learner.start_epoch(order.epoch)
    positions = share.kept_positions(order.kept)
    shuffled = torch.randperm(len(positions), generator=torch_generator(*stream, "batches"))
    losses = []
    for step, batch in enumerate(positions[shuffled].split(order.config.batch_size)):
        with named_torch_stream(*stream, step, "layers"):
            learner.begin(batch, *stream, step, "augmentation")
        targets = torch.from_numpy(share.targets[batch.numpy()]).float()
        losses.append(learner.finish(targets, None))
    return float(np.mean(losses)), len(positions)
