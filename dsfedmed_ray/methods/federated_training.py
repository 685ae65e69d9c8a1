"""The schedule of federated rounds, as it is configured."""

from dataclasses import dataclass, field

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.learning.stopping_rule import check_tolerance
from dsfedmed_ray.methods.participation import check_joins
from dsfedmed_ray.models.segmenter import Segmenter
from dsfedmed_ray.runtime.local_training import LocalTraining


@dataclass(frozen=True, kw_only=True)
class FederatedTraining:
    """The schedule of the rounds.

    Attributes:
        rounds: the most rounds (paper: 100).
        clients_per_round: clients drawn for a round; None takes all.
        local: what a round asks of a client.
        validate_every: rounds between two validations on the seen sites; 0 never validates, and
            the last state is the result.
        max_validation_clients: validate on this many clients at most, the same ones every time.
        patience: rounds without a better validation before training stops; None runs all rounds.
        tolerance: the result is the latest round whose validation Dice is at most this far below
            the best, in [0, 1]; 0 takes the best round, 1 the last.
        joins: sites that join later, by the round (from 0) from which they take part.
    """

    rounds: int = 40
    clients_per_round: int | None = None
    local: LocalTraining = field(
        default_factory=lambda: LocalTraining(training=SegmentationTraining())
    )
    validate_every: int = 1
    max_validation_clients: int = 100
    patience: int | None = None
    tolerance: float = 0.0
    joins: dict[str, int] | None = None

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigurationError(f"method.federated.rounds is {self.rounds}; at least 1")
        if self.clients_per_round is not None and self.clients_per_round < 1:
            raise ConfigurationError(
                f"method.federated.clients_per_round is {self.clients_per_round}; at least 1, or "
                "null for all"
            )
        if self.validate_every < 0:
            raise ConfigurationError(
                f"method.federated.validate_every is {self.validate_every}; 0 (never) or more"
            )
        if self.max_validation_clients < 1:
            raise ConfigurationError(
                f"method.federated.max_validation_clients is {self.max_validation_clients}; "
                "at least 1"
            )
        if self.patience is not None and (self.patience < 1 or self.validate_every == 0):
            raise ConfigurationError(
                f"method.federated.patience is {self.patience}; at least 1 with validate_every "
                "above 0, or null"
            )

        check_tolerance("method.federated.tolerance", self.tolerance)

    def check(self, model: Segmenter, split: SplitFederation) -> None:
        """Checks what only the model and the sites can tell.

        Raises:
            ConfigurationError: ``joins`` names no client, ``norm_policy`` has nothing to keep, or
                there is nothing to validate on.
        """
        if self.validate_every > 0:
            split.require_validation()
        check_joins(self.joins or {}, self.rounds, split)
        self.local.kept_entries(model)
