"""Stage 5, the lightweight model: it trains on the pool and is judged at the clients."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsfedmed_ray.data.synthetic_samples import read_synthetic
from dsfedmed_ray.learning.mutual_distillation import Distillation, PoolLearner
from dsfedmed_ray.methods.best_state import BestState
from dsfedmed_ray.methods.exchange import Validation, candidate_validation
from dsfedmed_ray.methods.method import layout_of
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.segmenter import State
from dsfedmed_ray.records import Transfer
from dsfedmed_ray.runtime.client_pool import ClientPool

INITIAL = -1
"""The unit of the federated model among the candidates."""


class Student:
    """The lightweight model over the synthetic pool, and the best of what it has been.

    Args:
        context: the run.
        pool: the clients, which validate.
        stage: whose units these are.
        synthetic: folder of the synthetic set.
        initial: the federated state that it starts from; a candidate like any other.
        config: losses, rates, patience and averaging.

    Attributes:
        learner: the model and the pool, ready for batches.
        masks: the pool's, ``uint8 [pool, structures, size, size]`` of 0 and 1.
        best: the candidate that the seen sites' validation picks.
    """

    def __init__(
        self,
        context: RunContext,
        pool: ClientPool,
        *,
        stage: str,
        synthetic: Path,
        initial: State,
        config: Distillation,
    ) -> None:
        self._context = context
        self._pool = pool
        self._stage = stage
        self._config = config
        self._model = context.build(context.lightweight)
        self._model.load_trainable_state(initial)
        device = torch.device(context.server_device)
        self._model.to(device)
        self._layout = layout_of(self._model)
        samples = read_synthetic(synthetic)
        images = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)
        masks = np.stack([sample.mask for sample in samples]).transpose(0, 3, 1, 2)
        self.masks = torch.tensor(np.ascontiguousarray(masks))
        self.learner = PoolLearner(
            self._model,
            torch.tensor(np.ascontiguousarray(images)),
            self.masks,
            learning_rate=config.lightweight_learning_rate,
            config=config,
            augmentation=config.augmentation,
            device=device,
        )
        self.best = BestState(config.tolerance)
        self._last = INITIAL
        self._unsaid: list[Transfer] = []

    def begin(self, content: dict[str, Any] | None) -> None:
        """Offers the federated model, or goes on from :meth:`snapshot`."""
        if content is None:
            self._offer_initial()
            return
        self._model.load_trainable_state(content["model"])
        self.learner.optimizer.load_state_dict(content["optimizer"])
        self._last = content["epoch"]
        self.best = BestState.restored(content["best"], self._config.tolerance)

    def validated(self, epoch: int) -> tuple[dict[str, float], list[Transfer]]:
        """Mean Dice of the candidate after an epoch at the seen sites, and what travelled.

        Without values where no validation is due.
        """
        self._last = epoch
        sent, self._unsaid = self._unsaid, []
        if not self._config.validates(epoch):
            return {}, sent
        candidate = self._model.trainable_state()
        validation = self._judged(candidate, epoch)
        self.best.offer(epoch, validation.dice, candidate, is_complete=validation.is_complete)
        return {"validation_dice": validation.dice}, sent + validation.transfers

    def is_finished(self) -> bool:
        """Whether patience has run out; only a validated epoch may be the last."""
        return self._config.validates(self._last) and self.best.is_exhausted(
            self._last, self._config.patience
        )

    def snapshot(self) -> dict[str, Any]:
        """Tensors and plain values from which :meth:`begin` goes on."""
        return {
            "model": self._model.trainable_state(),
            "optimizer": self.learner.optimizer.state_dict(),
            "epoch": self._last,
            "best": self.best.snapshot(),
        }

    def _offer_initial(self) -> None:
        """The federated model itself is a candidate: stage 5 must earn its place.

        It travels like any other: the clients were not asked to keep what they validated before.
        """
        state = self._model.trainable_state()
        validation = self._judged(state, 0)
        self._unsaid = validation.transfers  # goes out with epoch 0, whose end a stop waits for
        self.best.offer(INITIAL, validation.dice, state, is_complete=validation.is_complete)

    def _judged(self, candidate: State, epoch: int) -> Validation:
        flat, clients = self._layout.flatten(candidate), self._context.all_clients()
        return candidate_validation(self._pool, clients, flat, stage=self._stage, unit=epoch)
