"""Scores by hand, and the three rules of selection."""

import math

import pytest
import torch
from torch import Tensor

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.learnability import (
    Selection,
    SelectionRule,
    authors_batch_rows,
    learnability_scores,
    num_selected,
    select,
)
from dsfedmed_ray.seeding import torch_generator

LOG3 = math.log(3.0)  # the logit of probability 0.75


def maps(*pixels: float) -> Tensor:
    """One sample a number, one structure, one pixel."""
    return torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 1, 1)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_scores_by_hand(weight: float) -> None:
    """Three samples whose foundation model says 0.75, 0.5 and 0.25 and whose mask is 1.

    The lightweight model says 0.5 throughout, so L_GT = -log p and L_KL = (p - 0.5) logit p.
    """
    scores = learnability_scores(
        maps(LOG3, 0, -LOG3), maps(0, 0, 0), maps(1, 1, 1), reliability_weight=weight
    )
    expected = [
        weight * math.log(0.75) + (1 - weight) * 0.25 * LOG3,
        weight * math.log(0.5),
        weight * math.log(0.25) + (1 - weight) * 0.25 * LOG3,
    ]
    assert scores.tolist() == pytest.approx(expected)


def test_the_temperature_enters_the_disagreement_only() -> None:
    hot = learnability_scores(
        maps(2 * LOG3), maps(0), maps(1), reliability_weight=0.5, temperature=2.0
    )
    reliability = math.log(9 / 10)  # the sigmoid of 2 log 3
    assert hot.item() == pytest.approx(0.5 * reliability + 0.5 * 0.25 * LOG3)


def test_no_score_grows_with_how_sure_a_model_is_beyond_the_limit() -> None:
    """Held within +-log 3 a logit of -42 says 0.25: as in the third sample above."""
    given = {"reliability_weight": 0.25, "logit_limit": LOG3}
    held = learnability_scores(maps(-42.0), maps(0.0), maps(1.0), **given)
    assert held.item() == pytest.approx(0.25 * math.log(0.25) + 0.75 * 0.25 * LOG3)
    both = learnability_scores(maps(-42.0), maps(-9.0), maps(1.0), **given)
    assert both.item() == pytest.approx(0.25 * math.log(0.25))


@pytest.mark.parametrize(
    ("pool", "ratio", "kept"),
    [(10, 0.5, 5), (5, 0.5, 3), (100, 0.07, 7), (10, 0.3, 3), (10, 1.0, 10), (10, 0.001, 1)],
)
def test_how_many_are_kept(pool: int, ratio: float, kept: int) -> None:
    assert num_selected(pool, ratio) == kept


def test_topk_keeps_the_highest_in_ascending_order() -> None:
    scores = torch.tensor([0.1, 0.9, -3.0, 0.5, 0.8, 0.2])
    assert select(scores, Selection(ratio=0.5), torch_generator(0)).tolist() == [1, 3, 4]


def test_ties_go_to_the_lower_index() -> None:
    kept = select(torch.zeros(6), Selection(ratio=0.5), torch_generator(0))
    assert kept.tolist() == [0, 1, 2]


def test_softmax_draws_in_proportion_to_exp_of_the_score() -> None:
    """Scores log 6, log 3, log 1 and one of three drawn: shares 0.6, 0.3, 0.1.

    With 4,000 draws the standard deviation of a share is below 0.008.
    """
    scores = torch.tensor([6.0, 3.0, 1.0]).log()
    config = Selection(rule="softmax", ratio=1 / 3)
    generator = torch_generator(0, "draws")
    drawn = torch.cat([select(scores, config, generator) for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=3) / 4000
    assert shares.tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_softmax_draws_without_replacement_and_from_its_stream_alone() -> None:
    config = Selection(rule="softmax", ratio=0.5)
    first = select(torch.zeros(20), config, torch_generator(0, "a"))
    assert len(first.unique()) == 10
    assert first.tolist() == sorted(first.tolist())
    assert torch.equal(first, select(torch.zeros(20), config, torch_generator(0, "a")))
    assert not torch.equal(first, select(torch.zeros(20), config, torch_generator(0, "b")))


@pytest.mark.parametrize("rule", ["topk", "softmax", "authors_batch"])
def test_a_ratio_of_one_keeps_the_pool(rule: SelectionRule) -> None:
    kept = select(torch.randn(7), Selection(rule=rule, ratio=1.0), torch_generator(0))
    assert kept.tolist() == list(range(7))


def test_authors_rule_by_hand() -> None:
    """Masks of 1, so a model's loss falls with its logit.

    Losses' 70 % quantile among four lies between the third and the fourth (linear interpolation
    at rank 2.1), so each model drops its worst row: the foundation model row 3, the lightweight
    one row 0. Of rows 1 and 2, half (one) counts: row 2, where the logits are 3 apart, not 1.
    """
    foundation, lightweight = maps(4, 3, 2, -2), maps(-2, 2, -1, 3)
    rows = authors_batch_rows(foundation, lightweight, maps(1, 1, 1, 1), ratio=0.5)
    assert rows.tolist() == [False, False, True, False]
    rows = authors_batch_rows(foundation, lightweight, maps(1, 1, 1, 1), ratio=1.0)
    assert rows.tolist() == [False, True, True, False]


@pytest.mark.parametrize(("limit", "counted"), [(math.inf, 1), (2.0, 2)])
def test_authors_rule_ranks_by_held_logits(limit: float, counted: int) -> None:
    """Rows 1 and 2 are reliable, as above. Row 1 has logits 40 and 2, row 2 has 2 and -1.

    The divergences are 0.12 * 38 and 0.61 * 3; within +-2 the first is 0.
    """
    foundation, lightweight = maps(50, 40, 2, -2), maps(-2, 2, -1, 3)
    rows = authors_batch_rows(
        foundation, lightweight, maps(1, 1, 1, 1), ratio=0.5, logit_limit=limit
    )
    assert rows.nonzero().flatten().tolist() == [counted]


def test_authors_rule_when_no_row_is_reliable_for_both() -> None:
    """Of two rows each model is sure of one only, and not of the same."""
    rows = authors_batch_rows(maps(3, -3), maps(-3, 3), maps(1, 1), ratio=0.5)
    assert rows.tolist() == [False, False]


def test_authors_rule_keeps_a_batch_of_one() -> None:
    assert authors_batch_rows(maps(1), maps(0), maps(1), ratio=0.5).tolist() == [True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rule": "best"},
            r"selection\.rule is 'best'; allowed: topk, softmax, authors_batch",
        ),
        ({"ratio": 0.0}, r"selection\.ratio is 0\.0; allowed: above 0 up to 1"),
        ({"ratio": 1.5}, r"selection\.ratio is 1\.5; allowed: above 0 up to 1"),
        ({"reliability_weight": 2.0}, r"reliability_weight is 2\.0; allowed: 0 to 1"),
        ({"every_epochs": 0}, r"every_epochs is 0; at least 1"),
    ],
)
def test_impossible_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Selection(**changes)  # type: ignore[arg-type]
