"""What a client does in a round, and what it keeps for itself."""

from dataclasses import dataclass, replace
from typing import Literal

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.models.normalisation import norm_entries
from dsfedmed_ray.models.segmenter import Segmenter

OptimizerState = Literal["reset", "keep"]
NormPolicy = Literal["average", "local"]


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """What a client does in a round.

    Attributes:
        training: schedule and loss (authors: one local epoch a round).
        optimizer_state: ``reset`` starts each round with a fresh optimiser; ``keep`` goes on with
            the client's own from its last round (authors), kept on the client's disk.
        rate_decay: factor of the learning rate from round to round, in (0, 1] (authors: 1). With a
            constant rate the average of few clients swings from round to round.
        norm_policy: ``average`` sends normalisation layers like all others; ``local`` keeps their
            parameters, statistics and counters at the client (FedBN, Li et al. 2021).
    """

    training: SegmentationTraining
    optimizer_state: OptimizerState = "reset"
    rate_decay: float = 0.96
    norm_policy: NormPolicy = "average"

    def __post_init__(self) -> None:
        if not 0 < self.rate_decay <= 1:
            raise ConfigurationError(
                f"method.federated.local.rate_decay is {self.rate_decay}; allowed: above 0 up to 1 "
                "(1 keeps the learning rate)"
            )
        if self.optimizer_state not in ("reset", "keep"):
            raise ConfigurationError(
                f"method.federated.local.optimizer_state is {self.optimizer_state!r}; "
                "allowed: reset, keep"
            )
        if self.norm_policy not in ("average", "local"):
            raise ConfigurationError(
                f"method.federated.local.norm_policy is {self.norm_policy!r}; "
                "allowed: average, local"
            )

    def in_round(self, round_index: int) -> SegmentationTraining:
        """The training of a round, its learning rate decayed."""
        rate = self.training.learning_rate * self.rate_decay**round_index
        return replace(self.training, learning_rate=rate)

    def kept_entries(self, model: Segmenter) -> tuple[str, ...]:
        """Entries of a model's trainable state that stay at the client.

        Raises:
            ConfigurationError: they shall stay and the model has none.
        """
        if self.norm_policy == "average":
            return ()
        kept = norm_entries(model, model.trainable_state())
        if not kept:
            raise ConfigurationError(
                "method.federated.local.norm_policy is 'local', but the lightweight model's "
                "normalisation layers have no parameters and no statistics; choose a model that "
                "has some (lightweight.norm=batch for the U-Net), or norm_policy=average"
            )
        return kept
