"""Stage 6: the distilled model goes back to the hospitals, who train it for a few more rounds.

What the lightweight model learned about looks that no client has comes at a price on the clients'
own images: synthetic ones are not quite like them. Rounds at the low rate at which the schedule of
stage 3 ends win that back; the mean of the weights before and after them keeps more of the rest
(weight averaging, Wortsman et al. 2022, arXiv 2109.01903). The paper has no such rounds.
"""

from dataclasses import replace
from pathlib import Path

from dsfedmed_ray.methods.best_state import BestState
from dsfedmed_ray.methods.exchange import candidate_validation
from dsfedmed_ray.methods.fedavg import FederatedRounds
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.resumable import UnitResult
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.segmenter import State
from dsfedmed_ray.records import Transfer
from dsfedmed_ray.runtime.client_pool import ClientPool

STAGE = "refine_federated"
START_SHARE = 0.5
"""Of the weights before the rounds in the averaged candidate."""


class RefinementRounds(FederatedRounds):
    """Rounds from a model that other training made, numbered on from those of stage 3.

    When they are over the clients validate three candidates: the federated model of stage 3, the
    refined one, and the mean of the refined one and the one it started from. Of those about as
    good as the best the last is kept, as everywhere
    (:class:`~dsfedmed_ray.methods.best_state.BestState`).

    Args:
        context: the run.
        pool: the clients.
        schedule: of stage 3.
        rounds: how many more.
        stage: whose rounds they are, for lines and ledger.
        start: the model to go on from.
        federated: the model of stage 3.
    """

    def __init__(
        self,
        context: RunContext,
        pool: ClientPool,
        schedule: FederatedTraining,
        *,
        rounds: int,
        stage: str,
        start: State,
        federated: State,
    ) -> None:
        super().__init__(
            context,
            pool,
            # No round is validated; and everybody has joined by now.
            replace(schedule, rounds=rounds, patience=None, validate_every=0, joins=None),
            stage=stage,
            stream=STAGE,  # rows of the table see the same batches
            initial=start,
            first_round=schedule.rounds,
        )
        self._start = start
        self._federated = federated

    def advance(self, unit: int) -> UnitResult:
        """One round; after the last one the candidates."""
        result = super().advance(unit)
        values, transfers = result.values, list(result.transfers)
        if unit + 1 == self._schedule.rounds:
            dice, sent = self._judged(unit)
            values, transfers = values | dice, transfers + sent
        # A deployment of DSFedMed has no rows, so that what theirs send is not counted.
        return UnitResult(values=values, transfers=transfers if self._stage == STAGE else [])

    @property
    def keeps_federated(self) -> bool:
        """Whether the federated model of stage 3 is the result."""
        return self._best.unit == 0

    def _judged(self, unit: int) -> tuple[dict[str, float], list[Transfer]]:
        """Offers the candidates; gives the Dice of each and of the kept one, and what travelled."""
        refined = self._layout.unflatten(self._state)
        candidates = {
            "federated_dice": self._federated,
            "refined_dice": refined,
            "averaged_dice": averaged(refined, self._start, START_SHARE),
        }
        clients = self._participation.joined(unit, self._schedule.max_validation_clients)
        self._best = BestState(self._schedule.tolerance)
        values: dict[str, float] = {}
        transfers: list[Transfer] = []
        for number, (name, state) in enumerate(candidates.items()):
            flat = self._layout.flatten(state)
            said = candidate_validation(self._pool, clients, flat, stage=self._stage, unit=unit)
            transfers += said.transfers
            values[name] = said.dice
            if self._best.offer(number, said.dice, state, is_complete=said.is_complete):
                values["validation_dice"] = said.dice
        return values, transfers


def averaged(state: State, other: State, share: float) -> State:
    """Weights with a share of the other state's; counters stay."""
    return {
        name: value.lerp(other[name].to(value), share) if value.is_floating_point() else value
        for name, value in state.items()
    }


def refine_federated(
    context: RunContext,
    schedule: FederatedTraining,
    *,
    rounds: int,
    stage: str,
    start: State,
    federated: State,
    folder: Path,
) -> None:
    """Trains from ``start`` and writes the model to ``folder``; see :class:`RefinementRounds`."""
    refinement = RefinementRounds(
        context,
        context.pool(schedule.local),
        schedule,
        rounds=rounds,
        stage=stage,
        start=start,
        federated=federated,
    )

    def finish() -> None:
        refinement.save_best(folder)
        if stage == STAGE and refinement.keeps_federated:
            context.progress.note(
                "refine federated  neither the refined model nor its average came near the "
                "federated one on the seen sites' validation, so that one stays the result"
            )

    context.unit_loop(stage).run(stage, rounds, refinement, finish=finish)
