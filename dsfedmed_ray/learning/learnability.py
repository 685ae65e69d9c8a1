"""Learnability-guided selection: which synthetic samples the two models learn from.

A sample is worth learning from when the foundation model is reliable on it and the lightweight
model still disagrees (paper, section "Learnability-Guided Sample Selection").
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.losses import cross_entropy, held, symmetric_kl

SelectionRule = Literal["topk", "softmax", "authors_batch"]
RULES = ("topk", "softmax", "authors_batch")

AUTHORS_RELIABLE_QUANTILE = 0.7
"""Release: a sample passes if its loss is at most the batch's 70 % quantile for both models."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How samples are selected.

    Attributes:
        rule: ``topk`` keeps the highest scores (paper); ``softmax`` draws without replacement with
            probability proportional to ``exp(score)`` (paper, a(x)); ``authors_batch`` is the
            release's rule inside each mini-batch.
        ratio: share of the pool that is kept, in (0, 1] (paper and authors: 0.5).
        reliability_weight: the paper's lambda, in [0, 1].
        every_epochs: epochs between two passes of the foundation model over the pool. Scores are
            renewed in each epoch, from the logits that it gave last.
    """

    rule: SelectionRule = "topk"
    ratio: float = 0.5
    reliability_weight: float = 0.5
    every_epochs: int = 1

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigurationError(
                f"method.selection.rule is {self.rule!r}; allowed: {', '.join(RULES)}"
            )
        if not 0.0 < self.ratio <= 1.0:
            raise ConfigurationError(
                f"method.selection.ratio is {self.ratio}; allowed: above 0 up to 1 "
                "(1 keeps every sample)"
            )
        if not 0.0 <= self.reliability_weight <= 1.0:
            raise ConfigurationError(
                f"method.selection.reliability_weight is {self.reliability_weight}; allowed: 0 to 1"
            )
        if self.every_epochs < 1:
            raise ConfigurationError(
                f"method.selection.every_epochs is {self.every_epochs}; at least 1"
            )


def learnability_scores(
    foundation_logits: Float[Tensor, "pool structures height width"],
    lightweight_logits: Float[Tensor, "pool structures height width"],
    masks: Float[Tensor, "pool structures height width"],
    *,
    reliability_weight: float,
    temperature: float = 1.0,
    logit_limit: float = math.inf,
) -> Float[Tensor, " pool"]:
    """The score ``s_i = lambda (-L_GT(i)) + (1 - lambda) L_KL(i)`` of each sample.

    ``L_GT`` is the foundation model's cross-entropy against the mask, ``L_KL`` the symmetric
    divergence of the two models; both of logits held within ``+-logit_limit``, so that no score
    grows with how far beyond certainty a model goes.
    """
    sure = held(foundation_logits, logit_limit)
    reliability = -cross_entropy(sure, masks)
    disagreement = symmetric_kl(sure, held(lightweight_logits, logit_limit), temperature)
    return reliability_weight * reliability + (1.0 - reliability_weight) * disagreement


def num_selected(pool_size: int, ratio: float) -> int:
    """How many samples a ratio keeps: rounded up, so that at least one stays."""
    # 0.07 * 100 is 7.000000000000001 in binary; without the rounding it would keep 8.
    return max(1, math.ceil(round(ratio * pool_size, 9)))


def select(
    scores: Float[Tensor, " pool"], config: Selection, generator: Generator
) -> Int[Tensor, " selected"]:
    """Indices of the kept samples, ascending.

    ``topk``: ties go to the lower index. ``softmax``: drawn without replacement by Gumbel top-k,
    which has the same distribution as drawing one after the other proportional to ``exp(score)``.
    ``authors_batch`` selects later, inside each batch, so here it keeps the whole pool.
    """
    pool_size = scores.shape[0]
    if config.rule == "authors_batch":
        return torch.arange(pool_size)
    keep = num_selected(pool_size, config.ratio)
    ranked = scores.double()
    if config.rule == "softmax":
        uniform = torch.rand(pool_size, generator=generator, dtype=torch.float64)
        ranked = ranked - torch.log(-torch.log(uniform.clamp(1e-300, 1.0 - 1e-16)))
    order = torch.argsort(ranked, descending=True, stable=True)
    return order[:keep].sort().values


def authors_batch_rows(
    foundation_logits: Float[Tensor, "batch structures height width"],
    lightweight_logits: Float[Tensor, "batch structures height width"],
    masks: Float[Tensor, "batch structures height width"],
    *,
    ratio: float,
    temperature: float = 1.0,
    logit_limit: float = math.inf,
) -> Bool[Tensor, " batch"]:
    """The rows of a mini-batch whose divergence counts, by the release's rule.

    Keep rows whose loss is at most the batch's 70 % quantile for both models; of these, the share
    ``ratio`` with the highest divergence, of logits held within ``+-logit_limit``. If no row is
    reliable for both, no row counts.
    """
    reliable = torch.ones(masks.shape[0], dtype=torch.bool)
    for logits in (foundation_logits, lightweight_logits):
        loss = cross_entropy(logits, masks)
        reliable &= (loss <= torch.quantile(loss, AUTHORS_RELIABLE_QUANTILE)).cpu()
    rows = torch.zeros_like(reliable)
    candidates = reliable.nonzero().squeeze(1)
    if len(candidates) > 0:
        sure = held(foundation_logits, logit_limit)
        divergence = symmetric_kl(sure, held(lightweight_logits, logit_limit), temperature).cpu()
        order = torch.argsort(divergence[candidates], descending=True, stable=True)
        rows[candidates[order[: num_selected(len(candidates), ratio)]]] = True
    return rows
