"""Which model the rounds after distillation deliver."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.dsfedmed.pipeline import DSFedMed
from dsfedmed_ray.methods.dsfedmed.refine_federated import STAGE, RefinementRounds, averaged
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.method import MODEL_FILE
from dsfedmed_ray.runtime.availability import Availability
from dsfedmed_ray.runtime.local_training import LocalTraining

FEDERATED, START, REFINED = 1.0, 2.0, 4.0
AVERAGED = 3.0  # of 2 and 4


class OneWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def trainable_state(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight.detach().clone()}

    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        self.weight.data = state["weight"].clone()


class Pool:
    """Two clients; the mean of a round is REFINED, and Dice depends on the weight."""

    policy = SimpleNamespace(require_enough=lambda *_: None)

    def __init__(self, dice: dict[float, float]) -> None:
        self._dice = dice
        self.orders: list[tuple[float, int, str]] = []

    def client_name(self, client_id: int) -> str:
        return "ab"[client_id]

    def fit_round(
        self, broadcast: FlatState, client_ids: Sequence[int], **order: Any
    ) -> SimpleNamespace:
        self.orders.append((float(broadcast.values[0]), order["round_index"], order["stage"]))
        state = FlatState(values=broadcast.values * 0 + REFINED, counters=broadcast.counters)
        reply = SimpleNamespace(
            client_id=0, num_samples=1, metrics={"loss": 0.0}, num_uplink_bytes=4
        )
        return SimpleNamespace(state=state, replies=(reply,))

    def map(
        self, method: str, client_ids: Sequence[int], flat: FlatState, part: str
    ) -> Iterator[tuple[int, float]]:
        assert (method, part) == ("evaluate", "validation")
        for client_id in client_ids:
            yield client_id, self._dice[float(flat.values[0])]


def rounds(pool: Pool, *, stage: str = STAGE) -> RefinementRounds:
    context: Any = SimpleNamespace(
        seed=0,
        split=SimpleNamespace(num_clients=2, seen_sites=("a", "b"), num_train=lambda _: 1),
        lightweight=None,
        availability=Availability(),
        wire_dtype="float32",
        build=lambda _: OneWeight(),
    )
    any_pool: Any = pool
    return RefinementRounds(
        context,
        any_pool,
        FederatedTraining(rounds=30, patience=5, tolerance=0.01, joins={"b": 7}),
        rounds=2,
        stage=stage,
        start={"weight": torch.tensor([START])},
        federated={"weight": torch.tensor([FEDERATED])},
    )


@pytest.mark.parametrize(
    ("dice", "delivered"),
    [
        ((0.800, 0.810, 0.801), AVERAGED),  # 0.009 below the best: as good, and later
        ((0.800, 0.810, 0.799), REFINED),  # the mean lies 0.011 below
        ((0.800, 0.791, 0.780), REFINED),  # as good as the federated one
        ((0.800, 0.789, 0.789), FEDERATED),
        ((0.700, 0.600, 0.900), AVERAGED),
    ],
)
def test_the_last_of_those_about_as_good_is_delivered(
    dice: tuple[float, float, float], delivered: float, tmp_path: Path
) -> None:
    """Judged after the second and last round alone, on every client, by both clients alike."""
    pool = Pool(dict(zip((FEDERATED, REFINED, AVERAGED), dice, strict=True)))
    refinement = rounds(pool)
    refinement.begin(None)
    assert "validation_dice" not in refinement.advance(0).values
    result = refinement.advance(1)
    names = ("federated_dice", "refined_dice", "averaged_dice")
    assert tuple(result.values[name] for name in names) == pytest.approx(dice)
    kept = dict(zip((FEDERATED, REFINED, AVERAGED), dice, strict=True))[delivered]
    assert result.values["validation_dice"] == pytest.approx(kept)
    assert not refinement.is_finished()
    refinement.save_best(tmp_path)
    assert float(load_file(tmp_path / MODEL_FILE)["weight"]) == delivered
    assert refinement.keeps_federated == (delivered == FEDERATED)


def test_rounds_are_numbered_on_and_start_from_the_distilled_model() -> None:
    """Stage 3 may have 30 rounds: these are rounds 30 and 31, whose rate has fallen further."""
    pool = Pool({FEDERATED: 0.5, REFINED: 0.5, AVERAGED: 0.5})
    refinement = rounds(pool)
    refinement.begin(None)
    refinement.advance(0)
    refinement.advance(1)
    assert pool.orders == [(START, 30, STAGE), (REFINED, 31, STAGE)]


def test_a_stopped_refinement_judges_the_same_candidates() -> None:
    """A new process goes on after the first round."""
    pool = Pool({FEDERATED: 0.8, REFINED: 0.81, AVERAGED: 0.805})
    first = rounds(pool)
    first.begin(None)
    first.advance(0)
    again = rounds(pool)
    again.begin(first.snapshot())
    assert again.advance(1) == first.advance(1)


@pytest.mark.parametrize(("stage", "is_counted"), [(STAGE, True), ("refine_fedavg", False)])
def test_what_a_control_sends_is_not_counted(stage: str, is_counted: bool) -> None:
    """Two clients get the start, and three candidates each with a score back; one uploads."""
    pool = Pool({FEDERATED: 0.5, REFINED: 0.5, AVERAGED: 0.5})
    refinement = rounds(pool, stage=stage)
    refinement.begin(None)
    transfers = [*refinement.advance(0).transfers, *refinement.advance(1).transfers]
    kinds = [(line.what, line.direction) for line in transfers]
    assert {line.stage for line in transfers} == ({STAGE} if is_counted else set())
    assert kinds.count(("candidate", "downlink")) == (6 if is_counted else 0)
    assert kinds.count(("validation_dice", "uplink")) == (6 if is_counted else 0)
    assert kinds.count(("state", "downlink")) == (4 if is_counted else 0)
    assert kinds.count(("state", "uplink")) == (2 if is_counted else 0)


def test_averaged_leaves_counters() -> None:
    """0.75 * 4 + 0.25 * 2 = 3.5; the counter stays 7."""
    state = {"weight": torch.tensor([4.0]), "count": torch.tensor(7)}
    other = {"weight": torch.tensor([2.0]), "count": torch.tensor(3)}
    mean = averaged(state, other, 0.25)
    assert float(mean["weight"]) == 3.5
    assert int(mean["count"]) == 7


def test_impossible_settings() -> None:
    with pytest.raises(ConfigurationError, match=r"refinement_rounds is -1; allowed: 0 \(none\)"):
        DSFedMed(federated=FederatedTraining(), refinement_rounds=-1)
    local = LocalTraining(training=SegmentationTraining(), norm_policy="local")
    with pytest.raises(ConfigurationError, match=r"norm_policy=local set .*refinement_rounds=0"):
        DSFedMed(federated=FederatedTraining(local=local), refinement_rounds=1)
