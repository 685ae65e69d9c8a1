"""Adaptation of the foundation model to the synthetic set, its masks as labels (stage 4).

The frozen part ran already: what is trained here starts from kept embeddings.

A segment-anything model expects a prompt. Given none, its logits lie far from where the loss has
a gradient (LiteMedSAM: -24), and the first steps are large and blind. Two things mend that: the
logits are shifted to the prior of the masks before the first step, and gradients are clipped.

Several workers can share the steps (data-parallel training): each takes its part of every batch,
and the mean of their gradients is the gradient of the whole batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.losses import segmentation_loss
from dsfedmed_ray.learning.rate_schedule import rate_factor


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How the foundation model is fine-tuned.

    Attributes:
        epochs: passes over the synthetic set.
        batch_size: samples a step (authors: 4).
        learning_rate: Adam's, times the factor of :func:`~.rate_schedule.rate_factor`, which rises
            to 0.92 over the first tenth of the steps and falls to 0.1 (authors: 1e-4, constant).
        positive_weight: weight of foreground pixels in the cross-entropy (authors: 2).
        gradient_clip: largest norm of a step's gradient (authors: none, which is ``inf``).
        start_at_prior: shift the logits so that they start at the share of foreground in the masks
            (authors: False).
        num_workers: processes that share every batch, through Ray Train; 1 trains in the foundation
            model's own process.
    """

    epochs: int = 10
    batch_size: int = 4
    learning_rate: float = 5e-4
    positive_weight: float = 1.0
    gradient_clip: float = 1.0
    start_at_prior: bool = True
    num_workers: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "positive_weight", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(
                    f"method.adaptation.{name} is {getattr(self, name)}; it must be positive"
                )
        if self.num_workers < 1:
            raise ConfigurationError(f"foundation.num_workers is {self.num_workers}; at least 1")
        if self.batch_size % self.num_workers:
            raise ConfigurationError(
                f"method.adaptation.batch_size is {self.batch_size}, which foundation.num_workers="
                f"{self.num_workers} cannot share evenly; make it a multiple of the workers"
            )


@dataclass(frozen=True)
class BatchShare:
    """One worker's part of every batch.

    Attributes:
        rank: of the worker, from 0.
        num_workers: that share a batch.
    """

    rank: int = 0
    num_workers: int = 1

    def of(self, batch: Tensor) -> tuple[Tensor, float]:
        """Its rows, and what their mean loss is multiplied by.

        The mean over workers of these products is the mean loss of the batch, also of the last one,
        which may be shorter than the others. A worker without a row computes one that counts 0,
        since all workers take part in the exchange of gradients.

        Args:
            batch: row numbers, ``int [batch]``.
        """
        own = batch[self.rank :: self.num_workers]
        weight = len(own) * self.num_workers / len(batch)
        return (own, weight) if len(own) else (batch[:1], 0.0)


WHOLE_BATCH = BatchShare()


@torch.no_grad()
def shift_to_prior(
    decode: Callable[[Tensor], Tensor],
    embeddings: Any,
    masks: UInt8[Tensor, "pool structures size size"],
    batch_size: int,
) -> Float[Tensor, " structures"]:
    """What added to the logits makes their mean the log-odds of the masks' foreground.

    Args:
        decode: the trainable part, in evaluation mode.
        embeddings: indexed by an integer tensor, ``[pool, ...]``.
        masks: 0 and 1, on the model's device.
        batch_size: samples a forward pass.
    """
    total = torch.zeros(masks.shape[1], dtype=torch.float64, device=masks.device)
    foreground = torch.zeros_like(total)
    for indices in torch.arange(len(masks)).split(batch_size):
        logits = decode(embeddings[indices].to(masks.device).float())
        total += logits.double().mean(dim=(2, 3)).sum(dim=0)
        foreground += masks[indices].sum(dim=(0, 2, 3))
    # Masks without foreground, or with nothing else, still leave a finite start.
    share = (foreground / masks[:, 0].numel()).clamp(1e-4, 1 - 1e-4)
    return (share.logit() - total / len(masks)).float()


def adapt_one_epoch(
    decode: Callable[[Tensor], Tensor],
    optimizer: Optimizer,
    embeddings: Any,
    masks: Tensor,
    config: Adaptation,
    epoch: int,
    generator: Generator,
    share: BatchShare = WHOLE_BATCH,
) -> float:
    """One pass over the pool.

    Args:
        decode: the trainable part, embeddings to logits.
        optimizer: of its parameters, a single group.
        embeddings: indexed by an integer tensor, ``[pool, ...]``.
        masks: ``uint8 [pool, structures, size, size]`` of 0 and 1, on the model's device.
        config: schedule and loss.
        epoch: from 0; says where the learning rate is.
        generator: the stream of the shuffle, the same for all workers.
        share: this worker's part of every batch.

    Returns:
        The mean loss over the steps, of this worker's share.
    """
    losses = []
    batches = torch.randperm(len(masks), generator=generator).split(config.batch_size)
    for number, batch in enumerate(batches):
        indices, weight = share.of(batch)
        factor = rate_factor(epoch * len(batches) + number, config.epochs * len(batches))
        optimizer.param_groups[0]["lr"] = config.learning_rate * factor
        targets = masks[indices.to(masks.device)].float()
        logits = decode(embeddings[indices].to(masks.device).float())
        loss = weight * segmentation_loss(logits, targets, config.positive_weight).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(optimizer.param_groups[0]["params"], config.gradient_clip)
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())
