"""Adaptation of the foundation model to the synthetic set, its masks as labels (stage 4).

The frozen part ran already: what is trained here starts from kept embeddings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.losses import segmentation_loss


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How the foundation model is fine-tuned.

    Attributes:
        epochs: passes over the synthetic set.
        batch_size: samples a step (authors: 4).
        learning_rate: Adam's (authors: 1e-4).
        positive_weight: weight of foreground pixels in the cross-entropy (authors: 2).
    """

    epochs: int = 10
    batch_size: int = 4
    learning_rate: float = 3e-4
    positive_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "positive_weight"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(
                    f"method.adaptation.{name} is {getattr(self, name)}; it must be positive"
                )


def adapt_one_epoch(
    decode: Callable[[Tensor], Tensor],
    optimizer: Optimizer,
    embeddings: Any,
    masks: Tensor,
    config: Adaptation,
    generator: Generator,
) -> float:
    """One pass over the pool.

    Args:
        decode: the trainable part, embeddings to logits.
        optimizer: of its parameters.
        embeddings: indexed by an integer tensor, ``[pool, ...]``.
        masks: ``uint8 [pool, structures, size, size]`` of 0 and 1, on the model's device.
        config: batch size and loss.
        generator: the stream of the shuffle.

    Returns:
        The mean loss over the steps.
    """
    losses = []
    for indices in torch.randperm(len(masks), generator=generator).split(config.batch_size):
        targets = masks[indices.to(masks.device)].float()
        logits = decode(embeddings[indices].to(masks.device).float())
        loss = segmentation_loss(logits, targets, config.positive_weight).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())
