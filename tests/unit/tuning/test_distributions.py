"""Distributions of a space file."""

from typing import Any

import pytest

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.tuning.distributions import read_distribution


@pytest.mark.parametrize(
    ("content", "examples"),
    [
        ({"uniform": [0.2, 1]}, (0.2, 1)),
        ({"loguniform": [1e-4, 1e-2]}, (1e-4, 1e-2)),
        ({"quniform": [0.1, 0.9, 0.2]}, (0.1, 0.9)),
        ({"randint": [1, 8]}, (1, 8)),
        ({"choice": ["reset", "keep"]}, ("reset", "keep")),
        ({"grid": [None, 4, 8]}, (None, 4, 8)),
    ],
)
def test_examples_are_both_bounds_or_every_choice(
    content: dict[str, Any], examples: tuple[Any, ...]
) -> None:
    assert read_distribution(content, "space.x").examples() == examples


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (0.5, r"space\.x is 0\.5; write one distribution"),
        ({"uniform": [0, 1], "grid": [1]}, r"write one distribution"),
        ({"normal": [0, 1]}, r"space\.x has the distribution 'normal'; allowed: uniform, logun"),
        ({"uniform": 3}, r"space\.x\.uniform is 3; a list is expected"),
        ({"uniform": [1, 1]}, r"space\.x\.uniform is empty: 1 is not below 1"),
        ({"uniform": [1.0, 0.2]}, r"space\.x\.uniform is empty: 1\.0 is not below 0\.2"),
        ({"uniform": [0.2]}, r"space\.x\.uniform is \[0\.2\]; expected \[low, high\]"),
        ({"uniform": [False, True]}, r"expected \[low, high\]"),
        ({"loguniform": [0, 1]}, r"space\.x\.loguniform starts at 0; a logarithm"),
        ({"quniform": [0, 1, 2]}, r"space\.x\.quniform has the step 2; allowed: above 0 up to 1"),
        ({"randint": [1, 2.5]}, r"expected \[low, high\] of whole numbers"),
        ({"choice": []}, r"space\.x\.choice is empty; give at least one value"),
        ({"grid": [1, 1]}, r"space\.x\.grid names a value twice"),
        ({"choice": [{"a": 1}]}, r"space\.x\.choice holds \{'a': 1\}; allowed: null, true"),
    ],
)
def test_refuses_what_cannot_be_drawn(content: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_distribution(content, "space.x")
