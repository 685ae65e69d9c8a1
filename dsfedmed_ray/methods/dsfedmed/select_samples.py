"""Stage 5, first half: which synthetic samples the two models learn from in this epoch."""

import torch
from torch import Tensor

from dsfedmed_ray.learning.learnability import Selection, learnability_scores, select
from dsfedmed_ray.learning.mutual_distillation import PoolLearner
from dsfedmed_ray.runtime.pending import Pending
from dsfedmed_ray.seeding import torch_generator


def score_pool(
    foundation_logits: Pending,
    lightweight: PoolLearner,
    masks: Tensor,
    selection: Selection,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Learnability scores of the whole pool, from one forward pass of each model.

    Gives the foundation model's logits too, which teach until it is asked again. That model needs
    its trainable part only: its embeddings are kept. Both models work at the same time where they
    are in different processes: its logits may be on their way.
    """
    lightweight_logits = lightweight.pool_logits()
    logits: Tensor = foundation_logits.result()
    scores = learnability_scores(
        logits,
        lightweight_logits,
        masks.float(),
        reliability_weight=selection.reliability_weight,
        temperature=temperature,
    )
    return scores, logits


def needs_scores(selection: Selection, epoch: int) -> bool:
    """Whether this epoch renews the scores.

    Nothing is scored where everything is kept, or where the rule works inside each batch.
    """
    if selection.rule == "authors_batch" or selection.ratio == 1.0:
        return False
    return epoch % selection.every_epochs == 0


def selected_samples(scores: Tensor, selection: Selection, seed: int, epoch: int) -> Tensor:
    """Indices of the samples of this epoch, ascending."""
    return select(scores, selection, torch_generator(seed, "select_samples", epoch))


def whole_pool(size: int) -> Tensor:
    """All indices."""
    return torch.arange(size)
