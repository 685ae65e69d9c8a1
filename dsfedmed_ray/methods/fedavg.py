"""Federated averaging: the round loop of every method (paper, section "Federated training").

FedSAM, FedMSA, FedU-Net, FednnU-Net and FedTinySAM are this file over another segmenter.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.learning.aggregation import StateLayout
from dsfedmed_ray.learning.wire import from_wire, to_wire
from dsfedmed_ray.methods.best_state import BestState
from dsfedmed_ray.methods.exchange import StateVersions, transfers_of, validation_dice
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.local_norms import (
    NORMS_FILE,
    collect_norms,
    read_site_norms,
    save_site_norms,
)
from dsfedmed_ray.methods.method import MAX_SCORED_SITES, MODEL_FILE, MethodResult
from dsfedmed_ray.methods.participation import Attendance, Participation
from dsfedmed_ray.methods.plan_network import plan_network
from dsfedmed_ray.methods.resumable import UnitResult
from dsfedmed_ray.methods.run_context import RunContext, StageOutput
from dsfedmed_ray.models.segmenter import Segmenter, State
from dsfedmed_ray.models.weights import save_weights
from dsfedmed_ray.records import Transfer
from dsfedmed_ray.runtime.client_pool import ClientPool, RoundResult

STAGE = "train_federated"


class FederatedRounds:
    """The rounds of one federated training; a unit is a round.

    Args:
        context: the run.
        pool: the clients.
        schedule: of the rounds.
        stage: whose rounds they are, for lines and ledger.
        stream: names the clients' random streams and what they keep.
        initial: the state to start from; None is the model's own.
        first_round: the first round's number, by which the clients' rate falls.
    """

    def __init__(
        self,
        context: RunContext,
        pool: ClientPool,
        schedule: FederatedTraining,
        *,
        stage: str = STAGE,
        stream: str = STAGE,
        initial: State | None = None,
        first_round: int = 0,
    ) -> None:
        self._context = context
        self._pool = pool
        self._schedule = schedule
        self._stage = stage
        self._stream = stream
        self._first_round = first_round
        model = context.build(context.lightweight)
        if initial is not None:
            model.load_trainable_state(initial)
        state = model.trainable_state()
        kept = schedule.local.kept_entries(model)
        shared = {name: value for name, value in state.items() if name not in kept}
        self._kept_layout = StateLayout.of({name: state[name] for name in kept})
        self._layout = StateLayout.of(shared)
        self._initial = self._layout.flatten(shared)
        self._participation = Participation(
            seed=context.seed,
            stage=stream,
            split=context.split,
            clients_per_round=schedule.clients_per_round,
            joins=schedule.joins or {},
            training=schedule.local.training,
            availability=context.availability,
        )
        self._begin_fresh()

    def _begin_fresh(self) -> None:
        self._state, self._last_round = self._initial, -1
        self._best = BestState(self._schedule.tolerance)
        self._versions = StateVersions(
            self._pool, stage=self._stage, wire_dtype=self._context.wire_dtype
        )
        self._first_rounds: dict[int, int] = {}  # of clients that keep something

    def begin(self, content: dict[str, Any] | None) -> None:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        self._begin_fresh()
        if content is not None:
            self._state = self._layout.flatten(content["state"])
            self._best = BestState.restored(content["best"], self._schedule.tolerance)
            self._last_round = content["round"]
            self._first_rounds = content["first_rounds"]
            self._versions.restore(content["versions"])

    def advance(self, unit: int) -> UnitResult:
        """One round."""
        # 1. Choose the round's clients; of those that shall be away, none does any work.
        wire_dtype = self._context.wire_dtype
        travels = to_wire(self._state, self._state, wire_dtype)
        number = self._first_round + unit
        clients = self._participation.attendance(number, 2 * payload_bytes(travels))
        unit_name = f"round {unit + 1}"
        self._pool.policy.require_enough(len(clients.in_time), len(clients.asked), unit_name)
        # 2. Broadcast; the clients train; their states come back as exact partial sums.
        result = self._pool.fit_round(
            self._state,
            clients.in_time,
            round_index=number,
            total_weight=sum(self._context.split.num_train(c) for c in clients.in_time),
            stage=self._stream,
            num_asked=len(clients.asked),
        )
        transfers = self._versions.send(clients.reached, self._state, unit)
        transfers += self._uplinks(unit, result)
        # 3. The mean, as it reaches those who hold the last broadcast, is the new global state.
        self._state = from_wire(to_wire(result.state, self._state, wire_dtype), self._state)
        self._versions.renew()
        self._last_round = unit
        if self._keeps_norms:
            for reply in result.replies:
                self._first_rounds.setdefault(reply.client_id, unit)
        # 4. Validate on the seen sites; the best state so far is kept.
        values = self._values(clients, result, transfers)
        if self._participation.some_join(unit):
            # Scores over fewer sites say nothing about these.
            self._best = BestState(self._schedule.tolerance)
        if self._validates(unit):
            dice, sent = self._validated(unit)
            transfers += sent
            values["validation_dice"] = dice
        return UnitResult(values=values, transfers=transfers)

    @property
    def _keeps_norms(self) -> bool:
        return bool(self._kept_layout.names)

    def is_finished(self) -> bool:
        """Whether patience has run out, after a validation; it waits for every client to join."""
        return (
            self._validates(self._last_round)
            and self._participation.all_have_joined(self._last_round)
            and self._best.is_exhausted(self._last_round, self._schedule.patience)
        )

    def snapshot(self) -> dict[str, Any]:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        return {
            "state": self._layout.unflatten(self._state),
            "versions": self._versions.snapshot(),
            "best": self._best.snapshot(),
            "round": self._last_round,
            "first_rounds": self._first_rounds,
        }

    def save_best(self, folder: Path) -> None:
        """Writes the best state, or the last one where nothing was validated."""
        state = self._best.state or self._layout.unflatten(self._state)
        if self._keeps_norms:
            state = self._completed(state, folder)
        save_weights(state, folder / MODEL_FILE)

    def _completed(self, state: State, folder: Path) -> State:
        """Adds the mean of what clients kept with the best round, and writes each site's own."""
        best_round = self._best.unit if self._best.state else self._last_round
        trained = sorted(c for c, first in self._first_rounds.items() if first <= best_round)
        mean, kept, sent = collect_norms(
            self._pool,
            trained,
            self._kept_layout,
            round_index=best_round,
            num_train=self._context.split.num_train,
            num_scored=MAX_SCORED_SITES,
            stage=self._stage,
        )
        self._context.journal.transfers(sent)
        save_site_norms(kept, folder / NORMS_FILE)
        return {**state, **mean}

    def _validates(self, round_index: int) -> bool:
        every = self._schedule.validate_every
        return every > 0 and (
            (round_index + 1) % every == 0 or round_index + 1 == self._schedule.rounds
        )

    def _validated(self, round_index: int) -> tuple[float, list[Transfer]]:
        most = self._schedule.max_validation_clients
        clients = (
            sorted(self._first_rounds)[:most]  # the others have no normalisation yet
            if self._keeps_norms
            else self._participation.joined(round_index, most)
        )
        validation = validation_dice(
            self._pool,
            clients,
            self._state,
            stage=self._stage,
            unit=round_index,
            with_own_norms=self._keeps_norms,
        )
        self._best.offer(
            round_index,
            validation.dice,
            self._layout.unflatten(self._state),
            is_complete=validation.is_complete,
        )
        sent = self._versions.send(clients, self._state, round_index)
        return validation.dice, sent + validation.transfers

    def _uplinks(self, round_index: int, result: RoundResult) -> list[Transfer]:
        return [
            line
            for reply in result.replies
            for line in transfers_of(
                self._pool.client_name(reply.client_id),
                {"state": reply.num_uplink_bytes},
                direction="uplink",
                stage=self._stage,
                round_index=round_index,
            )
        ]

    def _values(
        self, clients: Attendance, result: RoundResult, transfers: list[Transfer]
    ) -> dict[str, float]:
        total = sum(reply.num_samples for reply in result.replies)
        loss = sum(r.metrics["loss"] * r.num_samples for r in result.replies) / total
        uplink = sum(t.num_bytes for t in transfers if t.direction == "uplink")
        values = {
            "num_clients": float(len(clients.asked)),
            "num_replies": float(len(result.replies)),
            "loss": loss,
            "uplink_bytes": float(uplink),
        }
        availability = self._context.availability
        if availability.loses_clients:
            values["num_absent"] = float(len(clients.absent))
            values["num_late"] = float(len(clients.late))
        if availability.has_clock:
            values["simulated_seconds"] = clients.round_seconds(r.client_id for r in result.replies)
        return values


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
        settings={
            "model": context.lightweight,
            "schedule": schedule,
            "availability": context.availability,
            "wire_dtype": context.wire_dtype,
        },
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

    def check(self, model: Segmenter, split: SplitFederation, generator: Any) -> None:
        """See :class:`~dsfedmed_ray.methods.method.Method`."""
        self.federated.check(model, split)

    def run(self, context: RunContext) -> MethodResult:
        """Trains ``context.lightweight``."""
        plan_network(context, self.federated)
        trained = federated_stage(context, self.federated)
        return MethodResult(
            lightweight=load_file(trained.folder / MODEL_FILE),
            site_norms=read_site_norms(trained.folder),
        )
