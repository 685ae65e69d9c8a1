"""How sizes and times are written."""

import pytest

from dsfedmed_ray.units import format_bytes, format_seconds


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KB"),
        (43_201_331, "41.2 MB"),
        (8920 * 2**20, "8.7 GB"),
        (5000 * 2**30, "5,000.0 GB"),
    ],
)
def test_format_bytes(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (12.41, "12.4 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
