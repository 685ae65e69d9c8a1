"""Up over a tenth of the steps, down over the rest."""

import pytest

from dsfedmed_ray.learning.rate_schedule import rate_factor


def test_twenty_steps_by_hand() -> None:
    """Two warm steps: 1/2 * 1, then 1 * (1 - 0.045); half way 1 - 0.45; last 1 - 0.9 * 19/20."""
    assert rate_factor(0, 20) == pytest.approx(0.5)
    assert rate_factor(1, 20) == pytest.approx(0.955)
    assert rate_factor(10, 20) == pytest.approx(0.55)
    assert rate_factor(19, 20) == pytest.approx(0.145)


def test_a_single_step_runs_at_the_peak() -> None:
    assert rate_factor(0, 1) == 1.0
