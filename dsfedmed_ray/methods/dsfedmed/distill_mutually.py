"""Stage 5: foundation and lightweight model teach each other on the selected samples."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsfedmed_ray.data.synthetic_samples import read_synthetic
from dsfedmed_ray.learning.learnability import Selection
from dsfedmed_ray.learning.mutual_distillation import Distillation, PoolLearner
from dsfedmed_ray.methods.best_state import BestState
from dsfedmed_ray.methods.dsfedmed import exchange_logits
from dsfedmed_ray.methods.dsfedmed.exchange_logits import LogitExchange
from dsfedmed_ray.methods.dsfedmed.serve_targets import ServedTargets
from dsfedmed_ray.methods.exchange import broadcast_transfers, validation_dice
from dsfedmed_ray.methods.method import (
    FOUNDATION_FILE,
    MODEL_FILE,
    RunContext,
    layout_of,
)
from dsfedmed_ray.methods.resumable import UnitResult
from dsfedmed_ray.models.segmenter import State
from dsfedmed_ray.models.weights import save_weights
from dsfedmed_ray.records import Transfer
from dsfedmed_ray.runtime.client_pool import ClientPool
from dsfedmed_ray.runtime.pending import FoundationHandle

STAGE = exchange_logits.STAGE
INITIAL = -1
"""The unit of the federated model among the candidates."""


class DistillationEpochs:
    """The epochs of stage 5; a unit is an epoch."""

    def __init__(
        self,
        context: RunContext,
        pool: ClientPool,
        foundation: FoundationHandle,
        *,
        synthetic: Path,
        initial_lightweight: State,
        initial_foundation: State,
        config: Distillation,
        selection: Selection,
    ) -> None:
        self._context = context
        self._pool = pool
        self._foundation = foundation
        self._synthetic = synthetic
        self._initial = initial_lightweight
        self._initial_foundation = initial_foundation
        self._config = config
        self._selection = selection

    def begin(self, content: dict[str, Any] | None) -> None:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        self._model = self._context.build(self._context.lightweight)
        self._model.load_trainable_state(self._initial)
        self._model.to(self._context.server_device)
        self._layout = layout_of(self._model)
        self._learner, masks = self._open_pool()
        self._foundation.call("load_trainable_state", self._initial_foundation).result()
        self._foundation.call("open_pool", self._synthetic).result()
        self._foundation.call("start_distillation", self._config).result()
        self._exchange = self._exchange_over(masks)
        self._best, self._last = BestState(), -1
        self._unsaid: list[Transfer] = []
        if content is None:
            self._offer_initial()
            return
        self._model.load_trainable_state(content["model"])
        self._learner.optimizer.load_state_dict(content["optimizer"])
        self._foundation.call("restore_progress", content["foundation"]).result()
        self._exchange.scores, self._last = content["scores"], content["epoch"]
        self._best = BestState.restored(content["best"])

    def advance(self, unit: int) -> UnitResult:
        """One epoch of the exchange, then validation at the clients."""
        values = self._exchange.epoch(unit)
        self._last = unit
        dice, sent = self._validated(unit)
        transfers, self._unsaid = self._unsaid + self._exchange.transfers + sent, []
        return UnitResult(values={**values, "validation_dice": dice}, transfers=transfers)

    def is_finished(self) -> bool:
        """Whether patience has run out."""
        return self._best.is_exhausted(self._last, self._config.patience)

    def snapshot(self) -> dict[str, Any]:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        return {
            "model": self._model.trainable_state(),
            "optimizer": self._learner.optimizer.state_dict(),
            "foundation": self._foundation.call("progress_state").result(),
            "scores": self._exchange.scores,
            "epoch": self._last,
            "best": self._best.snapshot(),
        }

    def save(self, folder: Path) -> None:
        """Writes the best lightweight model and the foundation model after the last epoch."""
        if self._best.unit == INITIAL:
            self._context.progress.note(
                "distill mutually  no epoch was better on the seen sites' validation, so the "
                "federated model stays the result"
            )
        save_weights(self._best.state, folder / MODEL_FILE)
        save_weights(self._foundation.call("trainable_state").result(), folder / FOUNDATION_FILE)

    def _exchange_over(self, masks: Tensor) -> LogitExchange | ServedTargets:
        if self._config.placement == "server":
            return LogitExchange(
                self._foundation,
                self._learner,
                masks,
                config=self._config,
                selection=self._selection,
                seed=self._context.seed,
            )
        return ServedTargets(
            self._context,
            self._pool,
            self._foundation,
            self._learner,
            masks,
            synthetic=self._synthetic,
            config=self._config,
            selection=self._selection,
        )

    def _open_pool(self) -> tuple[PoolLearner, Tensor]:
        """The lightweight model's side, and the pool's masks."""
        samples = read_synthetic(self._synthetic)
        images = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)
        masks = np.stack([sample.mask for sample in samples]).transpose(0, 3, 1, 2)
        masks_tensor = torch.tensor(np.ascontiguousarray(masks))
        learner = PoolLearner(
            self._model,
            torch.tensor(np.ascontiguousarray(images)),
            masks_tensor,
            learning_rate=self._config.lightweight_learning_rate,
            config=self._config,
            augmentation=self._config.augmentation,
            device=torch.device(self._context.server_device),
        )
        return learner, masks_tensor

    def _offer_initial(self) -> None:
        """The federated model itself is a candidate: distillation must earn its place."""
        flat = self._layout.flatten(self._model.trainable_state())
        clients = self._context.all_clients()
        dice, sent = validation_dice(self._pool, clients, flat, stage=STAGE, unit=0)
        self._unsaid = sent  # the clients hold this state already; its scores go out with epoch 0
        self._best.offer(INITIAL, dice, self._model.trainable_state())

    def _candidate(self) -> State:
        """The distilled model, averaged with the federated one it started from."""
        share = self._config.federated_share
        return {
            name: value.lerp(self._initial[name].to(value), share)
            if value.is_floating_point()
            else value
            for name, value in self._model.trainable_state().items()
        }

    def _validated(self, unit: int) -> tuple[float, list[Transfer]]:
        candidate = self._candidate()
        flat = self._layout.flatten(candidate)
        clients = self._context.all_clients()
        dice, up = validation_dice(self._pool, clients, flat, stage=STAGE, unit=unit)
        names = [self._pool.client_name(client) for client in clients]
        down = broadcast_transfers(names, flat, stage=STAGE, what="candidate", round_index=unit)
        self._best.offer(unit, dice, candidate)
        return dice, down + up


def distill_mutually(
    context: RunContext,
    pool: ClientPool,
    *,
    synthetic: Path,
    initial_lightweight: State,
    initial_foundation: State,
    config: Distillation,
    selection: Selection,
    folder: Path,
) -> None:
    """Distils and writes both models to ``folder``."""
    foundation = context.foundation_server()
    epochs = DistillationEpochs(
        context,
        pool,
        foundation,
        synthetic=synthetic,
        initial_lightweight=initial_lightweight,
        initial_foundation=initial_foundation,
        config=config,
        selection=selection,
    )
    context.unit_loop(STAGE).run(
        STAGE,
        config.epochs,
        epochs,
        finish=lambda: epochs.save(folder),
        recover=foundation.replace,
    )
