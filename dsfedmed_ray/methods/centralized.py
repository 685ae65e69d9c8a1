"""Training on all seen sites' pairs in one place: the bound that federation gives up."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.evaluation.evaluator import score
from dsfedmed_ray.learning.segmentation_training import (
    Pairs,
    SegmentationTraining,
    make_optimizer,
    train_on_pairs,
)
from dsfedmed_ray.learning.stopping_rule import check_patience, check_tolerance
from dsfedmed_ray.methods.best_state import BestState
from dsfedmed_ray.methods.method import MODEL_FILE, MethodResult
from dsfedmed_ray.methods.plan_network import plan_network_on_pooled_pairs
from dsfedmed_ray.methods.resumable import UnitResult
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.segmenter import Segmenter
from dsfedmed_ray.models.weights import save_weights
from dsfedmed_ray.seeding import named_torch_stream, torch_generator

STAGE = "train_centralized"


@dataclass(frozen=True, kw_only=True)
class CentralizedTraining:
    """The schedule.

    Attributes:
        epochs: the most passes over all seen pairs.
        training: loss and optimiser; its ``epochs`` is ignored, each unit is one pass.
        patience: epochs without a better seen validation before training stops; None runs all.
        tolerance: the result is the latest epoch whose validation Dice is at most this far below
            the best, in [0, 1]; 0 takes the best, 1 the last.
        rate_decay: what the learning rate is multiplied by after each epoch, in (0, 1].
    """

    epochs: int = 40
    training: SegmentationTraining = field(default_factory=SegmentationTraining)
    patience: int | None = None
    tolerance: float = 0.0
    rate_decay: float = 1.0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigurationError(f"method.centralized.epochs is {self.epochs}; at least 1")
        if not 0 < self.rate_decay <= 1:
            raise ConfigurationError(
                f"method.centralized.rate_decay is {self.rate_decay}; allowed: above 0 up to 1 "
                "(1 keeps the learning rate)"
            )
        check_patience("method.centralized.patience", self.patience)
        check_tolerance("method.centralized.tolerance", self.tolerance)
        if self.training.epochs != 1 or self.training.steps is not None:
            raise ConfigurationError(
                "method.centralized.training must have epochs 1 and steps null: a unit is one pass"
            )


class CentralizedEpochs:
    """The epochs of one training on pooled pairs; a unit is an epoch."""

    def __init__(self, context: RunContext, schedule: CentralizedTraining) -> None:
        self._context = context
        self._schedule = schedule
        self._device = torch.device(context.server_device)
        self._pairs = Pairs.of(
            [
                sample
                for site in context.split.seen_sites
                for sample in self._samples(site, "train")
            ],
            self._device,
        )

    def _samples(self, site: str, part: Any) -> Any:
        return self._context.split.samples(site, part)

    def begin(self, content: dict[str, Any] | None) -> None:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        self._model = self._context.build(self._context.lightweight).to(self._device)
        self._optimizer = make_optimizer(self._model, self._schedule.training)
        self._best, self._last = BestState(self._schedule.tolerance), -1
        if content is not None:
            self._model.load_trainable_state(content["model"])
            self._optimizer.load_state_dict(content["optimizer"])
            self._best = BestState.restored(content["best"], self._schedule.tolerance)
            self._last = content["epoch"]

    def advance(self, unit: int) -> UnitResult:
        """One pass, and a validation on every seen site."""
        name = (self._context.seed, STAGE, unit)
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule.training.learning_rate * self._schedule.rate_decay**unit
        with named_torch_stream(*name, "layers"):
            loss = train_on_pairs(
                self._model,
                self._optimizer,
                self._pairs,
                self._schedule.training,
                torch_generator(*name, "batches"),
            )
        self._last = unit
        dice = self._validated()
        self._best.offer(unit, dice, self._model.trainable_state())
        return UnitResult(values={"loss": loss, "validation_dice": dice})

    def is_finished(self) -> bool:
        """Whether patience has run out."""
        return self._best.is_exhausted(self._last, self._schedule.patience)

    def snapshot(self) -> dict[str, Any]:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        return {
            "model": self._model.trainable_state(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best.snapshot(),
            "epoch": self._last,
        }

    def save_best(self, folder: Path) -> None:
        """Writes the best state."""
        save_weights(self._best.state, folder / MODEL_FILE)

    def _validated(self) -> float:
        self._model.eval()
        scores = [
            score(
                lambda images: self._model(images.to(self._device)),
                self._samples(site, "validation"),
                batch_size=16,
                with_hd95=False,
            ).dice
            for site in self._context.split.seen_sites
        ]
        return sum(scores) / len(scores)


def train_centralized(context: RunContext, schedule: CentralizedTraining, folder: Path) -> None:
    """Trains the lightweight model on pooled pairs and writes it to ``folder``."""
    epochs = CentralizedEpochs(context, schedule)
    context.unit_loop(STAGE).run(
        STAGE, schedule.epochs, epochs, finish=lambda: epochs.save_best(folder)
    )


@dataclass(frozen=True, kw_only=True)
class Centralized:
    """Pooled training of one segmenter.

    Attributes:
        centralized: the schedule.
        name: the row's name.
    """

    uses_foundation: ClassVar[bool] = False
    centralized: CentralizedTraining
    name: str = "centralized"

    def check(self, model: Segmenter, split: SplitFederation, generator: Any) -> None:
        """See :class:`~dsfedmed_ray.methods.method.Method`."""
        split.require_validation()

    def run(self, context: RunContext) -> MethodResult:
        """Trains ``context.lightweight`` on all seen sites."""
        plan_network_on_pooled_pairs(context)
        trained = context.stage(
            STAGE,
            settings={"model": context.lightweight, "schedule": self.centralized},
            inputs=[],
            run=lambda folder: train_centralized(context, self.centralized, folder),
        )
        return MethodResult(lightweight=load_file(trained.folder / MODEL_FILE))
