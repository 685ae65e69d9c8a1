"""Scanners: contrasts in the textbook order, and the parts of the imaging chain one by one."""

from dataclasses import replace

import numpy as np
import pytest

from dsfedmed_ray.data.scanners import SEQUENCES, PulseSequence, Scanner, acquire, draw_scanner

IDEAL = Scanner(
    sequence="t1",
    signals=(0.6, 0.8, 0.2),
    texture=0.0,
    gain=1.0,
    gamma=1.0,
    bias=0.0,
    noise=0.0,
    resolution_mm=0.1,
    thickness_mm=1.0,
)


def _image(scanner: Scanner, tissues: np.ndarray, t1: np.ndarray | None = None) -> np.ndarray:
    return acquire(
        scanner,
        np.zeros(tissues.shape[1:], np.float32) if t1 is None else t1,
        tissues,
        pixel_mm=1.0,
        generator=np.random.default_rng(0),
    )


def _pure(tissue: int, size: int = 32) -> np.ndarray:
    tissues = np.zeros((3, size, size), np.float32)
    tissues[tissue] = 1
    return tissues


@pytest.mark.parametrize(
    ("sequence", "dark_to_bright"),
    [
        ("t1", ["fluid", "grey", "white"]),
        ("t2", ["white", "grey", "fluid"]),
        ("flair", ["fluid", "white", "grey"]),
    ],
)
def test_the_order_of_tissues_is_the_sequences_own(
    sequence: PulseSequence, dark_to_bright: list[str]
) -> None:
    for seed in range(30):
        signals = draw_scanner(np.random.default_rng(seed), sequence).signals
        by_tissue = dict(zip(("grey", "white", "fluid"), signals, strict=True))
        assert sorted(by_tissue, key=by_tissue.__getitem__) == dark_to_bright


def test_white_matter_is_the_darkest_in_proton_density() -> None:
    for seed in range(30):
        grey, white, fluid = draw_scanner(np.random.default_rng(seed), "pd").signals
        assert white < min(grey, fluid)


def test_any_sequence_is_drawn_where_none_is_asked_for() -> None:
    drawn = {draw_scanner(np.random.default_rng(seed)).sequence for seed in range(40)}

    assert drawn == set(SEQUENCES)


def test_fractions_are_mixed() -> None:
    """Half white (0.8) and half fluid (0.2) make 0.5; gain 0.5 makes 0.25; gamma 2, 0.0625."""
    half = (_pure(1) + _pure(2)) / 2

    assert _image(IDEAL, half)[16, 16] == pytest.approx(0.5)
    scanner = replace(IDEAL, gain=0.5, gamma=2.0)
    assert _image(scanner, half)[16, 16] == pytest.approx(0.0625)


def test_texture_is_what_the_t1_adds_to_its_tissues() -> None:
    """White matter of 0.96 in a template whose mean is 0.86: 0.8 + 0.5 x 0.1."""
    t1 = np.full((32, 32), 0.96, np.float32)

    image = _image(replace(IDEAL, texture=0.5), _pure(1), t1)

    assert image[16, 16] == pytest.approx(0.85, abs=1e-6)


def test_what_exceeds_the_range_saturates() -> None:
    assert _image(replace(IDEAL, gain=2.0), _pure(1)).max() == 1.0


def test_noise_is_rician() -> None:
    """Without signal the magnitude's mean is sigma sqrt(pi/2): 0.1 x 1.2533."""
    image = _image(replace(IDEAL, noise=0.1), np.zeros((3, 256, 256), np.float32))

    assert image.mean() == pytest.approx(0.12533, rel=0.01)


def test_resolution_blurs_and_keeps_the_mean() -> None:
    """A step, blurred to 4 mm: half of it at the edge."""
    tissues = _pure(1)
    tissues[:, :, 16:] = 0

    row = _image(replace(IDEAL, resolution_mm=4.0), tissues)[16]

    assert row[15] + row[16] == pytest.approx(0.8, abs=1e-4)
    assert 0.4 < row[15] < 0.6
    assert row[0] == pytest.approx(0.8, abs=1e-4)


def test_shading_is_smooth() -> None:
    image = _image(replace(IDEAL, bias=0.15, gain=0.5), _pure(1, size=64))

    assert image.std() > 0.01
    assert np.abs(np.diff(image, axis=0)).max() < 0.05
