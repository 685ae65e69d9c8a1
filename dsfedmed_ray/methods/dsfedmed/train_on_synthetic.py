"""The control of stage 5: the same steps on the synthetic masks alone.

No foundation model, no distillation, no scores. What this row gains over plain averaging, the
synthetic images bring; only what DSFedMed gains over this row is the foundation model's.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsfedmed_ray.learning.learnability import num_selected
from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.methods.dsfedmed.student import Student
from dsfedmed_ray.methods.method import MODEL_FILE
from dsfedmed_ray.methods.resumable import UnitResult
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.segmenter import State
from dsfedmed_ray.models.weights import save_weights
from dsfedmed_ray.runtime.client_pool import ClientPool
from dsfedmed_ray.seeding import named_torch_stream, torch_generator

STAGE = "train_on_synthetic"
STREAM = "distill_mutually"
"""Random streams are those of stage 5, so that both see the same batches where all are kept."""


class SyntheticEpochs:
    """As many steps an epoch as stage 5 makes, on samples drawn at random; a unit is an epoch."""

    def __init__(
        self,
        context: RunContext,
        pool: ClientPool,
        *,
        synthetic: Path,
        initial: State,
        config: Distillation,
        ratio: float,
    ) -> None:
        self._context = context
        self._pool = pool
        self._synthetic = synthetic
        self._initial = initial
        self._config = config
        self._ratio = ratio

    def begin(self, content: dict[str, Any] | None) -> None:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        self._student = Student(
            self._context,
            self._pool,
            stage=STAGE,
            synthetic=self._synthetic,
            initial=self._initial,
            config=self._config,
        )
        self._student.begin(content)

    def advance(self, unit: int) -> UnitResult:
        """One pass over the epoch's share, then validation at the clients.

        What validation sends is not counted: a deployment of DSFedMed has no such row.
        """
        self._student.learner.start_epoch(unit)
        losses = [
            self._step(unit, step, rows)
            for step, rows in enumerate(self._drawn(unit).split(self._config.batch_size))
        ]
        judged, _ = self._student.validated(unit)
        return UnitResult(values={"loss": float(np.mean(losses)), **judged})

    def is_finished(self) -> bool:
        """Whether patience has run out."""
        return self._student.is_finished()

    def snapshot(self) -> dict[str, Any]:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        return self._student.snapshot()

    def save(self, folder: Path) -> None:
        """Writes the best model."""
        save_weights(self._student.best.state, folder / MODEL_FILE)

    def _drawn(self, epoch: int) -> torch.Tensor:
        pool_size = len(self._student.masks)
        generator = torch_generator(self._context.seed, STREAM, epoch, "batches")
        order = torch.randperm(pool_size, generator=generator)
        return order[: num_selected(pool_size, self._ratio)]

    def _step(self, epoch: int, step: int, rows: torch.Tensor) -> float:
        stream = (self._context.seed, STREAM, epoch, step)
        learner = self._student.learner
        with named_torch_stream(*stream, "layers"):
            logits = learner.begin(rows, *stream, "augmentation")
        return learner.finish(logits, None)


def train_on_synthetic(
    context: RunContext,
    pool: ClientPool,
    *,
    synthetic: Path,
    initial: State,
    config: Distillation,
    ratio: float,
    folder: Path,
) -> None:
    """Trains and writes the model to ``folder``.

    Args:
        context: the run.
        pool: the clients, which validate.
        synthetic: folder of the synthetic set.
        initial: the federated state.
        config: of stage 5, without divergences.
        ratio: share of the pool in an epoch, in (0, 1].
        folder: receives the model.
    """
    epochs = SyntheticEpochs(
        context, pool, synthetic=synthetic, initial=initial, config=config, ratio=ratio
    )
    context.unit_loop(STAGE).run(STAGE, config.epochs, epochs, finish=lambda: epochs.save(folder))
