"""Model selection by the seen sites' validation."""

import torch

from dsfedmed_ray.methods.best_state import BestState


def state(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2,), value)}


def test_only_a_strictly_better_score_replaces_the_best() -> None:
    best = BestState()
    assert best.offer(0, 0.5, state(0))
    assert not best.offer(1, 0.5, state(1))
    assert not best.offer(2, 0.4, state(2))
    assert best.offer(3, 0.6, state(3))
    assert (best.unit, best.score) == (3, 0.6)
    assert torch.equal(best.state["weight"], torch.full((2,), 3.0))


def test_a_later_state_within_the_tolerance_replaces_the_best() -> None:
    """Tolerance 0.125: 0.5 then 0.375 (at its edge) are kept, 0.25 is not, 0.625 is a new best.

    After it 0.5 is at the edge again. The score stays the best one, and so does the unit that
    patience counts from.
    """
    best = BestState(tolerance=0.125)
    offered = [0.5, 0.375, 0.25, 0.625, 0.5]
    kept = [best.offer(unit, score, state(unit)) for unit, score in enumerate(offered)]
    assert kept == [True, True, False, True, True]
    assert (best.unit, best.best_unit, best.score) == (4, 3, 0.625)
    assert torch.equal(best.state["weight"], torch.full((2,), 4.0))
    assert [best.is_exhausted(unit, 2) for unit in (4, 5)] == [False, True]
    restored = BestState.restored(best.snapshot(), tolerance=0.125)
    assert (restored.unit, restored.best_unit, restored.score) == (4, 3, 0.625)
    assert restored.offer(5, 0.5, state(5))


def test_a_score_of_zero_is_a_score() -> None:
    best = BestState()
    assert best.offer(0, 0.0, state(0))
    assert not best.offer(1, 0.0, state(1))


def test_the_kept_state_does_not_change_with_the_model() -> None:
    best, living = BestState(), state(1)
    best.offer(0, 0.5, living)
    living["weight"].fill_(9)
    assert torch.equal(best.state["weight"], torch.ones(2))


def test_patience_counts_from_the_best_unit() -> None:
    best = BestState()
    assert not best.is_exhausted(100, 1)  # nothing was validated yet
    best.offer(2, 0.5, state(2))
    assert [best.is_exhausted(unit, 3) for unit in (2, 3, 4, 5, 6)] == [False] * 3 + [True] * 2
    assert not best.is_exhausted(1000, None)


def test_it_comes_back_from_a_checkpoint() -> None:
    best = BestState()
    best.offer(4, 0.7, state(4))
    restored = BestState.restored(best.snapshot())
    assert (restored.unit, restored.score) == (4, 0.7)
    assert torch.equal(restored.state["weight"], best.state["weight"])
    assert BestState.restored(BestState().snapshot()).score is None


def test_a_score_over_some_sites_gives_way_to_one_over_all() -> None:
    """0.9 over some is kept for want of better, 0.4 over all replaces it; 0.95 is not taken."""
    best = BestState(tolerance=0.01)
    assert best.offer(0, 0.9, state(0), is_complete=False)
    assert best.offer(1, 0.92, state(1), is_complete=False)
    assert best.offer(2, 0.4, state(2))
    assert not best.offer(3, 0.95, state(3), is_complete=False)
    assert (best.unit, best.score) == (2, 0.4)
    restored = BestState.restored(best.snapshot())
    assert not restored.offer(4, 0.99, state(4), is_complete=False)
    assert restored.offer(5, 0.5, state(5))


def test_a_tolerance_of_one_keeps_the_last() -> None:
    """Dice lies in [0, 1], so that no state is further below the best."""
    best = BestState(tolerance=1.0)
    assert [best.offer(unit, score, {}) for unit, score in enumerate((1.0, 0.5, 0.0))] == [True] * 3
    assert (best.score, best.unit) == (1.0, 2)
