"""Federated averaging: the round loop of every method (paper, section "Federated training").

FedSAM, FedMSA, FedU-Net, FednnU-Net and FedTinySAM are this file over another segmenter.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.best_state import BestState
from dsfedmed_ray.methods.method import (
    MODEL_FILE,
    MethodResult,
    RunContext,
    StageOutput,
    broadcast_transfers,
    layout_of,
    validation_dice,
)
from dsfedmed_ray.methods.resumable import UnitResult
from dsfedmed_ray.models.weights import save_weights
from dsfedmed_ray.records import Transfer
from dsfedmed_ray.runtime.client import LocalTraining
from dsfedmed_ray.runtime.client_pool import ClientPool, RoundResult
from dsfedmed_ray.seeding import numpy_generator

STAGE = "train_federated"


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
    """

    rounds: int = 40
    clients_per_round: int | None = None
    local: LocalTraining = field(
        default_factory=lambda: LocalTraining(training=SegmentationTraining())
    )
    validate_every: int = 1
    max_validation_clients: int = 100
    patience: int | None = None

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
        if self.patience is not None and (self.patience < 1 or self.validate_every == 0):
            raise ConfigurationError(
                f"method.federated.patience is {self.patience}; at least 1 with validate_every "
                "above 0, or null"
            )


class FederatedRounds:
    """The rounds of one federated training; a unit is a round."""

    def __init__(
        self,
        context: RunContext,
        pool: ClientPool,
        schedule: FederatedTraining,
    ) -> None:
        self._context = context
        self._pool = pool
        self._schedule = schedule
        initial = context.build(context.lightweight)
        self._layout = layout_of(initial)
        self._initial = self._layout.flatten(initial.trainable_state())
        self._state = self._initial
        self._best = BestState()
        self._last_round = -1

    def begin(self, content: dict[str, Any] | None) -> None:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        if content is None:
            self._state, self._best, self._last_round = self._initial, BestState(), -1
            return
        self._state = self._layout.flatten(content["state"])
        self._best = BestState.restored(content["best"])
        self._last_round = content["round"]

    def advance(self, unit: int) -> UnitResult:
        """One round."""
        # 1. Choose the round's clients.
        clients = self._sampled(unit)
        weight = sum(self._context.split.num_train(client) for client in clients)
        # 2. Broadcast; the clients train; their states come back as exact partial sums.
        result = self._pool.fit_round(self._state, clients, round_index=unit, total_weight=weight)
        transfers = self._round_transfers(unit, clients, result)
        # 3. The mean is the new global state.
        self._state = result.state
        self._last_round = unit
        # 4. Validate on the seen sites; the best state so far is kept.
        values = self._values(clients, result, transfers)
        if self._validates(unit):
            dice, sent = self._validated(unit)
            transfers += sent
            values["validation_dice"] = dice
        return UnitResult(values=values, transfers=transfers)

    def is_finished(self) -> bool:
        """Whether patience has run out."""
        return self._best.is_exhausted(self._last_round, self._schedule.patience)

    def snapshot(self) -> dict[str, Any]:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        return {
            "state": self._layout.unflatten(self._state),
            "best": self._best.snapshot(),
            "round": self._last_round,
        }

    def save_best(self, folder: Path) -> None:
        """Writes the best state, or the last one where nothing was validated."""
        state = self._best.state or self._layout.unflatten(self._state)
        save_weights(state, folder / MODEL_FILE)

    def _sampled(self, round_index: int) -> list[int]:
        population, wanted = self._context.split.num_clients, self._schedule.clients_per_round
        if wanted is None or wanted >= population:
            return list(range(population))
        stream = numpy_generator(self._context.seed, STAGE, "clients", round_index)
        return sorted(int(c) for c in stream.choice(population, size=wanted, replace=False))

    def _validates(self, round_index: int) -> bool:
        every = self._schedule.validate_every
        return every > 0 and (
            (round_index + 1) % every == 0 or round_index + 1 == self._schedule.rounds
        )

    def _validated(self, round_index: int) -> tuple[float, list[Transfer]]:
        # The validated state is the next round's broadcast, which is counted there.
        most = min(self._context.split.num_clients, self._schedule.max_validation_clients)
        dice, sent = validation_dice(
            self._pool, range(most), self._state, stage=STAGE, unit=round_index
        )
        self._best.offer(round_index, dice, self._layout.unflatten(self._state))
        return dice, sent

    def _round_transfers(
        self, round_index: int, clients: list[int], result: RoundResult
    ) -> list[Transfer]:
        names = [self._pool.client_name(client) for client in clients]
        down = broadcast_transfers(
            names, self._state, stage=STAGE, what="state", round_index=round_index
        )
        up = [
            Transfer(
                client=self._pool.client_name(reply.client_id),
                direction="uplink",
                stage=STAGE,
                what="state",
                num_bytes=reply.num_uplink_bytes,
                round_index=round_index,
            )
            for reply in result.replies
        ]
        return down + up

    def _values(
        self, clients: list[int], result: RoundResult, transfers: list[Transfer]
    ) -> dict[str, float]:
        total = sum(reply.num_samples for reply in result.replies)
        loss = sum(r.metrics["loss"] * r.num_samples for r in result.replies) / total
        uplink = sum(t.num_bytes for t in transfers if t.direction == "uplink")
        return {
            "num_clients": float(len(clients)),
            "num_replies": float(len(result.replies)),
            "loss": loss,
            "uplink_bytes": float(uplink),
        }


def train_federated(context: RunContext, schedule: FederatedTraining, folder: Path) -> None:
    """Stage 3: trains the lightweight model by federated averaging and writes it to ``folder``."""
    rounds = FederatedRounds(context, context.pool(schedule.local), schedule)
    context.unit_loop(STAGE).run(
        STAGE, schedule.rounds, rounds, finish=lambda: rounds.save_best(folder)
    )


def federated_stage(context: RunContext, schedule: FederatedTraining) -> StageOutput:
    """Stage 3 through the stage store: methods that agree on it share it."""
    return context.stage(
        STAGE,
        settings={"model": context.lightweight, "schedule": schedule},
        inputs=[],
        run=lambda folder: train_federated(context, schedule, folder),
    )


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    """Federated averaging of one segmenter, lightweight or foundation.

    Attributes:
        federated: the schedule.
        name: the row's name.
    """

    uses_foundation: ClassVar[bool] = False
    federated: FederatedTraining
    name: str = "fedavg"

    def run(self, context: RunContext) -> MethodResult:
        """Trains ``context.lightweight``."""
        trained = federated_stage(context, self.federated)
        return MethodResult(lightweight=load_file(trained.folder / MODEL_FILE))
