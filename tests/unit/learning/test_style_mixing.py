"""Styles that no client has."""

import numpy as np

from dsfedmed_ray.learning.style_mixing import diversify_style, shift_style
from dsfedmed_ray.models.painting import AREA, MEAN, NUM_FEATURES, PERIMETER
from dsfedmed_ray.models.pose import POSE_SIZE
from dsfedmed_ray.seeding import numpy_generator


def styles(count: int = 4) -> np.ndarray:
    size = 4 * NUM_FEATURES + POSE_SIZE
    return numpy_generator("styles").uniform(0.1, 0.4, (count, size)).astype(np.float32)


def test_no_share_changes_nothing() -> None:
    given = styles()
    mixed = diversify_style(given, [styles()], share=0.0, random=numpy_generator("mix"))
    assert np.array_equal(mixed, given)
    assert mixed is not given


def test_shift_keeps_shapes_and_ranges() -> None:
    given = styles(1)[0]
    shifted = shift_style(given, numpy_generator("shift"))
    before, after = (style[:-POSE_SIZE].reshape(4, -1) for style in (given, shifted))
    assert np.array_equal(given[-POSE_SIZE:], shifted[-POSE_SIZE:])
    assert np.array_equal(after[:, [AREA, PERIMETER]], before[:, [AREA, PERIMETER]])
    assert (after[:, MEAN] >= 0.02).all()
    assert (after[:, MEAN] <= 0.98).all()
    assert not np.array_equal(after[:, MEAN], before[:, MEAN])
    assert shifted.dtype == np.float32
