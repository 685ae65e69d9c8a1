"""Stage 5, the exchange: two models pass over the selected samples and swap logits."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dsfedmed_ray.learning.learnability import Selection, authors_batch_rows
from dsfedmed_ray.learning.mutual_distillation import Distillation, PoolLearner
from dsfedmed_ray.methods.dsfedmed.one_way_targets import OneWayTargets
from dsfedmed_ray.methods.dsfedmed.select_samples import (
    needs_scores,
    score_pool,
    selected_samples,
    whole_pool,
)
from dsfedmed_ray.records import Transfer
from dsfedmed_ray.runtime.pending import Done, FoundationHandle, Pending
from dsfedmed_ray.seeding import named_torch_stream, torch_generator

STAGE = "distill_mutually"


class LogitExchange:
    """The server's epochs of distillation, without their validation.

    Args:
        foundation: with the pool open and distillation started.
        learner: the lightweight model's side.
        masks: ``uint8 [pool, structures, size, size]`` of 0 and 1.
        config: losses and batches.
        selection: which samples.
        seed: the run's seed.
    """

    def __init__(
        self,
        foundation: FoundationHandle,
        learner: PoolLearner,
        masks: Tensor,
        *,
        config: Distillation,
        selection: Selection,
        seed: int,
    ) -> None:
        self._latest_logits = torch.empty(0, dtype=torch.float16)
        self.transfers: list[Transfer] = []  # nothing leaves the server
        self._foundation = foundation
        self._learner = learner
        self._masks = masks
        self._config = config
        self._selection = selection
        self._seed = seed
        self._targets: OneWayTargets | None = None

    def epoch(self, epoch: int) -> dict[str, float]:
        """Scores, where some are left out, and one pass over the kept samples; gives what happened.

        ``foundation_loss`` is there in epochs in which the foundation model learns.
        """
        started = time.perf_counter()
        self._learner.start_epoch(epoch)
        if self._config.foundation_learns(epoch):
            self._foundation.call("start_epoch", epoch).result()
        kept = self.kept(epoch)
        scored = time.perf_counter()
        losses = self._pass_over(epoch, kept)
        return {
            **{name: float(np.mean(values)) for name, values in losses.items() if values},
            "num_selected": float(len(kept)),
            "scoring_seconds": scored - started,
            "training_seconds": time.perf_counter() - scored,
        }

    def kept(self, epoch: int) -> Tensor:
        """Indices of the samples of this epoch, ascending; scores them where some are left out."""
        pool = whole_pool(len(self._masks))
        if not needs_scores(self._selection):
            return pool
        scores, foundation_logits = score_pool(
            self._pool_logits(epoch), self._learner, self._masks, self._selection, self._config
        )
        if self._asks_anew(epoch):
            self._remember(pool, foundation_logits)
        return selected_samples(scores, self._selection, self._seed, epoch)

    def _pass_over(self, epoch: int, kept: Tensor) -> dict[str, list[float]]:
        """Both models' losses, step by step; no step of a foundation model that rests.

        In a step both run, exchange logits, and each makes its own update. The foundation model is
        asked for its next logits before the lightweight model updates itself: in a process of its
        own it never waits for that update, and the lightweight model finds the logits ready.
        """
        batches = self._batches(epoch, kept)
        losses: list[float] = []
        foundation_losses: list[Pending] = []
        learns = self._config.foundation_learns(epoch)
        served = self._served(batches[0], learns)
        for step, rows in enumerate(batches):
            stream = (self._seed, STAGE, epoch, step)
            with named_torch_stream(*stream, "layers"):
                own_logits = self._learner.begin(rows, *stream, "augmentation")
            foundation_logits: Tensor = served.result()
            counted = self._counted(foundation_logits, own_logits, rows)
            if learns:
                foundation_losses.append(self._foundation.call("finish", own_logits, counted))
            if step + 1 < len(batches):
                served = self._served(batches[step + 1], learns)
            if learns:
                self._remember(rows, foundation_logits)
            losses.append(self._learner.finish(foundation_logits, counted))
        return {"loss": losses, "foundation_loss": [loss.result() for loss in foundation_losses]}

    def _batches(self, epoch: int, kept: Tensor) -> Sequence[Tensor]:
        generator = torch_generator(self._seed, STAGE, epoch, "batches")
        order = torch.randperm(len(kept), generator=generator)
        return kept[order].split(self._config.batch_size)

    def _served(self, rows: Tensor, learns: bool) -> Pending:
        """The foundation model's logits of a batch, with a graph where it learns too."""
        if learns:
            return self._foundation.call("begin", rows)
        if self._config.mutual:
            return Done(self._latest_logits[rows].float())
        return self._one_way().of(rows)

    def _remember(self, rows: Tensor, logits: Tensor) -> None:
        """Keeps what the foundation model gave for the epochs in which it is not asked."""
        scored_from_kept = needs_scores(self._selection) and self._selection.every_epochs > 1
        if not self._config.mutual or (self._config.foundation_every == 1 and not scored_from_kept):
            return
        if len(self._latest_logits) == 0:
            shape = (len(self._masks), *logits.shape[1:])
            self._latest_logits = torch.empty(shape, dtype=torch.float16)
        self._latest_logits[rows] = logits.half()

    def snapshot(self) -> dict[str, Tensor]:
        """What the next epochs need of the last ones."""
        return {"latest_logits": self._latest_logits}

    def restore(self, content: dict[str, Tensor]) -> None:
        """Goes on from :meth:`snapshot`."""
        self._latest_logits = content["latest_logits"]

    def _asks_anew(self, epoch: int) -> bool:
        """Whether the foundation model passes over the pool; one that does not learn never does."""
        return self._config.mutual and epoch % self._selection.every_epochs == 0

    def _pool_logits(self, epoch: int) -> Pending:
        """The foundation model's logits of the pool, the latest there are."""
        if self._asks_anew(epoch):
            return self._foundation.call("pool_logits")
        if self._config.mutual:
            return Done(self._latest_logits)
        return self._one_way().of(whole_pool(len(self._masks)))

    def _one_way(self) -> OneWayTargets:
        """Asked for in the order of the pool to score it, else in that of the first epoch."""
        if self._targets is None:
            pool = whole_pool(len(self._masks))
            scored = needs_scores(self._selection)
            batches = pool.split(self._config.batch_size) if scored else self._batches(0, pool)
            self._targets = OneWayTargets(self._foundation, batches)
        return self._targets

    def _counted(self, foundation: Tensor, own: Tensor, rows: Tensor) -> Tensor | None:
        if self._selection.rule != "authors_batch":
            return None
        return authors_batch_rows(
            foundation,
            own,
            self._masks[rows].float(),
            ratio=self._selection.ratio,
            temperature=self._config.temperature,
            logit_limit=self._config.logit_limit,
        )
