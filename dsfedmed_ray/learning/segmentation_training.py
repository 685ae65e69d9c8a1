"""Supervised training of one segmenter on image-mask pairs that fit in memory."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.augmentation import Augmentation, draw_turn, turn, vary_light
from dsfedmed_ray.learning.lean_optimizer import lean_optimizer, take_step
from dsfedmed_ray.learning.losses import segmentation_loss
from dsfedmed_ray.records import Sample

_KEY = "method.federated.local.training"

OptimizerName = Literal["adam", "adamw", "sgd"]


@dataclass(frozen=True, kw_only=True)
class SegmentationTraining:
    """How a segmenter is trained on pairs.

    Attributes:
        epochs: passes over the pairs; in a federated round, local epochs (authors: 1).
        steps: optimiser steps instead of ``epochs``, if set; then small and large sites do the
            same number of steps.
        batch_size: pairs a step (authors: 4).
        optimizer: ``adam`` (authors), ``adamw`` or ``sgd`` with momentum 0.9.
        learning_rate: of the optimiser (authors: 1e-4 for SAM-sized models).
        weight_decay: of the optimiser.
        positive_weight: weight of foreground pixels in the cross-entropy (authors: 2).
        augmentation: what is varied; None trains on the pairs as they are.
    """

    epochs: int = 1
    steps: int | None = None
    batch_size: int = 4
    optimizer: OptimizerName = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    positive_weight: float = 1.0
    augmentation: Augmentation | None = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "adamw", "sgd"):
            raise ConfigurationError(
                f"{_KEY}.optimizer is {self.optimizer!r}; allowed: adam, adamw, sgd"
            )
        for name in ("epochs", "batch_size", "learning_rate", "positive_weight"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(
                    f"{_KEY}.{name} is {getattr(self, name)}; it must be positive"
                )
        if self.weight_decay < 0:
            raise ConfigurationError(
                f"{_KEY}.weight_decay is {self.weight_decay}; it cannot be negative"
            )
        if self.steps is not None and self.steps < 1:
            raise ConfigurationError(f"{_KEY}.steps is {self.steps}; at least 1, or null")


@dataclass(frozen=True)
class Pairs:
    """Image-mask pairs as resident tensors, a byte a value.

    Attributes:
        images: ``uint8 [num, 3, height, width]``.
        masks: ``uint8 [num, structures, height, width]`` of 0 and 1.
    """

    images: UInt8[Tensor, "num 3 height width"]
    masks: UInt8[Tensor, "num structures height width"]

    @classmethod
    def of(cls, samples: Sequence[Sample], device: torch.device | None = None) -> "Pairs":
        """Decodes samples into tensors.

        Raises:
            ValueError: there is no sample.
        """
        if len(samples) == 0:
            raise ValueError("no samples to train on")
        loaded = list(samples)
        images = np.stack([sample.image for sample in loaded]).transpose(0, 3, 1, 2)
        masks = np.stack([sample.mask for sample in loaded]).transpose(0, 3, 1, 2)
        return cls(
            images=torch.tensor(np.ascontiguousarray(images), device=device),
            masks=torch.tensor(np.ascontiguousarray(masks), device=device),
        )

    def __len__(self) -> int:
        return self.images.shape[0]

    def batch(
        self, indices: Tensor
    ) -> tuple[
        Float[Tensor, "batch 3 height width"], Float[Tensor, "batch structures height width"]
    ]:
        """Images in [0, 1] and masks of 0 and 1, float32."""
        indices = indices.to(self.images.device)
        return self.images[indices].float() / 255.0, self.masks[indices].float()


def make_optimizer(model: nn.Module, config: SegmentationTraining) -> Optimizer:
    """The optimiser of a model's trainable parameters; :func:`take_step` steps it."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.optimizer == "sgd":
        return lean_optimizer(
            torch.optim.SGD,
            parameters,
            lr=config.learning_rate,
            momentum=0.9,
            weight_decay=config.weight_decay,
        )
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return lean_optimizer(
        kind, parameters, lr=config.learning_rate, weight_decay=config.weight_decay
    )


def batches_of_indices(
    num: int, config: SegmentationTraining, generator: Generator
) -> Iterator[Tensor]:
    """Shuffled index batches, for ``config.steps`` steps or ``config.epochs`` epochs.

    A last, smaller batch is kept: hospitals with few images need every one.
    """

    def epochs() -> Iterator[Tensor]:
        rounds = itertools.count() if config.steps is not None else range(config.epochs)
        for _ in rounds:
            yield from torch.randperm(num, generator=generator).split(config.batch_size)

    return itertools.islice(epochs(), config.steps)


def num_processed(num: int, config: SegmentationTraining) -> int:
    """Samples that :func:`batches_of_indices` gives in all, each counted as often as it comes."""
    if config.steps is None:
        return config.epochs * num
    epochs, steps = divmod(config.steps, -(-num // config.batch_size))
    return epochs * num + steps * config.batch_size


def augmented(
    images: Tensor, masks: Tensor, config: Augmentation | None, generator: Generator
) -> tuple[Tensor, Tensor]:
    """A batch after augmentation."""
    if config is None:
        return images, masks
    if config.dihedral:
        symmetry = draw_turn(generator)
        images, masks = turn(images, symmetry), turn(masks, symmetry)
    return vary_light(images, config, generator), masks


def train_on_pairs(
    model: nn.Module,
    optimizer: Optimizer,
    pairs: Pairs,
    config: SegmentationTraining,
    generator: Generator,
    on_step: Callable[[int, float], None] | None = None,
) -> float:
    """Trains a model in place.

    Args:
        model: maps images to logits; left in training mode.
        optimizer: of the model's parameters; its state goes on.
        pairs: what to train on.
        config: schedule and loss.
        generator: the stream of shuffles and augmentation.
        on_step: called after every step with its index and loss.

    Returns:
        The mean loss over the steps.
    """
    model.train()
    losses = []
    for step, indices in enumerate(batches_of_indices(len(pairs), config, generator)):
        images, masks = augmented(*pairs.batch(indices), config.augmentation, generator)
        loss = segmentation_loss(model(images), masks, config.positive_weight).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        take_step(optimizer)
        losses.append(loss.detach())
        if on_step is not None:
            on_step(step, float(loss.detach()))
    return float(torch.stack(losses).mean())
