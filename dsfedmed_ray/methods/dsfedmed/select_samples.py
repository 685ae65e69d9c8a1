"""Stage 5, first half: which synthetic samples the two models learn from in this epoch."""

import torch
from torch import Tensor

from dsfedmed_ray.learning.learnability import Selection, learnability_scores, select
from dsfedmed_ray.learning.mutual_distillation import Distillation, PoolLearner
from dsfedmed_ray.runtime.pending import Pending
from dsfedmed_ray.seeding import torch_generator


def score_pool(
    foundation_logits: Pending,
    lightweight: PoolLearner,
    masks: Tensor,
    selection: Selection,
    config: Distillation,
) -> tuple[Tensor, Tensor]:
    """Learnability scores of the whole pool, and the foundation model's logits they rest on.

    Both models work at the same time where they are in different processes: the logits may be on
    their way. Where the foundation model is not asked anew they are those that it gave last.
    """
    lightweight_logits = lightweight.pool_logits()
    logits: Tensor = foundation_logits.result()
    scores = [
        learnability_scores(
            logits[rows].float(),
            lightweight_logits[rows],
            masks[rows].float(),
            reliability_weight=selection.reliability_weight,
            temperature=config.temperature,
            logit_limit=config.logit_limit,
        )
        # The whole pool at once takes five times as long: it does not fit the processor's caches.
        for rows in whole_pool(len(masks)).split(config.batch_size)
    ]
    return torch.cat(scores), logits


def needs_scores(selection: Selection) -> bool:
    """Not where everything is kept, nor where the rule works inside each batch."""
    return selection.rule != "authors_batch" and selection.ratio < 1.0


def selected_samples(scores: Tensor, selection: Selection, seed: int, epoch: int) -> Tensor:
    """Indices of the samples of this epoch, ascending."""
    return select(scores, selection, torch_generator(seed, "select_samples", epoch))


def whole_pool(size: int) -> Tensor:
    """All indices."""
    return torch.arange(size)
