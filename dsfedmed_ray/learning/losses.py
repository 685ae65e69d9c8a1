"""Losses on per-pixel Bernoulli masks. Every function takes logits, never probabilities."""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(
    logits: Float[Tensor, "batch structures height width"],
    masks: Float[Tensor, "batch structures height width"],
    positive_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Binary cross-entropy of each sample, mean over pixels, summed over structures.

    ``l = sum_c mean_p -(w m log p + (1 - m) log(1 - p))``.

    Args:
        logits: predictions.
        masks: 0 or 1.
        positive_weight: weight ``w`` of foreground pixels (authors: pos_weight 2).
    """
    weight = logits.new_tensor(positive_weight)
    pixels = F.binary_cross_entropy_with_logits(logits, masks, reduction="none", pos_weight=weight)
    return pixels.mean(dim=(2, 3)).sum(dim=1)


def soft_dice_loss(
    logits: Float[Tensor, "batch structures height width"],
    masks: Float[Tensor, "batch structures height width"],
    smoothing: float = 1.0,
) -> Float[Tensor, " batch"]:
    """One minus the soft Dice of each sample, summed over structures.

    ``1 - (2 sum p m + s) / (sum p + sum m + s)``; the smoothing ``s`` makes an empty mask finite.
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * masks).sum(dim=(2, 3))
    total = probabilities.sum(dim=(2, 3)) + masks.sum(dim=(2, 3))
    return (1.0 - (2.0 * overlap + smoothing) / (total + smoothing)).sum(dim=1)


def segmentation_loss(
    logits: Float[Tensor, "batch structures height width"],
    masks: Float[Tensor, "batch structures height width"],
    positive_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Cross-entropy plus soft Dice loss of each sample, the supervised loss of both models."""
    return cross_entropy(logits, masks, positive_weight) + soft_dice_loss(logits, masks)


def held(logits: Float[Tensor, "*shape"], limit: float) -> Float[Tensor, "*shape"]:
    """Logits within ``+-limit``; ``inf`` gives them as they are.

    Where both models are sure and agree on the class they then agree altogether, however far a
    logit lies beyond the limit, and the divergence tells of the pixels where they do not.
    """
    return logits if math.isinf(limit) else logits.clamp(-limit, limit)


def symmetric_kl(
    logits: Float[Tensor, "batch structures height width"],
    other_logits: Float[Tensor, "batch structures height width"],
    temperature: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Both directions of the Kullback-Leibler divergence (paper, L_KL), per sample.

    Per pixel and structure a Bernoulli with ``p = sigmoid(z / T)``;
    ``KL(p||q) + KL(q||p) = (p - q) (logit p - logit q) = (p - q) (z - z') / T``,
    mean over pixels, summed over structures. Not negative, and 0 only where the two agree.
    """
    difference = (logits - other_logits) / temperature
    gap = (logits / temperature).sigmoid() - (other_logits / temperature).sigmoid()
    return (gap * difference).mean(dim=(2, 3)).sum(dim=1)
