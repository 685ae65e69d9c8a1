"""Subjects: smooth, invertible, the same at any resolution."""

import numpy as np
import pytest

from dsfedmed_ray.data.deformation import Deformation, draw_deformation


def _positions(seed: int, size: int) -> np.ndarray:
    return draw_deformation(np.random.default_rng(seed), size=size, field_of_view_mm=208).positions


def test_a_subject_is_the_same_at_any_size() -> None:
    coarse, fine = _positions(5, 64), _positions(5, 128)

    averaged = fine.reshape(2, 64, 2, 64, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(averaged, coarse, atol=0.1)


@pytest.mark.parametrize("seed", range(20))
def test_tissue_is_never_folded(seed: int) -> None:
    """The determinant of the Jacobian is positive: no place of the template is seen twice."""
    rows, columns = _positions(seed, 128)

    determinant = np.gradient(rows, axis=0) * np.gradient(columns, axis=1) - np.gradient(
        rows, axis=1
    ) * np.gradient(columns, axis=0)
    assert determinant.min() > 0


def test_subjects_differ_by_millimetres() -> None:
    difference = np.abs(_positions(0, 64) - _positions(1, 64))

    assert 1 < difference.mean() < 20


def test_positions_between_pixels_are_mixed() -> None:
    """The map holds its own position, 10 x row + column; outside is 0."""
    rows, columns = np.indices((6, 6), dtype=np.float32)
    positions = np.array([[[2.5, 5.0, 9.0]], [[3.25, 5.0, -4.0]]], np.float32)

    warped = Deformation(positions=positions).warp(np.stack([10 * rows + columns, rows]))

    np.testing.assert_allclose(warped, [[[28.25, 55.0, 0.0]], [[2.5, 5.0, 0.0]]], rtol=1e-5)
