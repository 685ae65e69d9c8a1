"""Styles that no client has."""

import numpy as np
import pytest

from dsfedmed_ray.learning.style_mixing import (
    DARKEST,
    MARGIN,
    borrowed,
    diversify_style,
    recast_structures,
    shift_style,
)
from dsfedmed_ray.models.painting import AREA, DEVIATION, FINE, MEAN, NUM_FEATURES, PERIMETER
from dsfedmed_ray.models.pose import POSE_SIZE
from dsfedmed_ray.seeding import numpy_generator


def styles(count: int = 4) -> np.ndarray:
    size = 4 * NUM_FEATURES + POSE_SIZE
    return numpy_generator("styles").uniform(0.1, 0.4, (count, size)).astype(np.float32)


def test_no_share_changes_nothing() -> None:
    given = styles()
    mixed, changed = diversify_style(given, [styles()], share=0.0, random=numpy_generator("mix"))
    assert np.array_equal(mixed, given)
    assert not changed.any()
    assert mixed is not given


@pytest.mark.parametrize(("share", "count"), [(0.5, 2), (0.9, 3), (1.0, 4)])
def test_a_share_of_four_styles_changes(share: float, count: int) -> None:
    """Half of four are two; of 3.6 only three, since one stays below a share of 1; poses stay."""
    given = styles()
    mixed, changed = diversify_style(
        given, [styles() / 2], share=share, random=numpy_generator("mix")
    )
    assert changed.sum() == count
    assert np.array_equal((mixed != given).any(axis=1), changed)
    assert np.array_equal(mixed[:, -POSE_SIZE:], given[:, -POSE_SIZE:])


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


def test_recast_structures_trade_places_and_keep_their_tint() -> None:
    """Ground at 0.2 and 0.3, structures at 0.5 and 0.9, the first of them redder by 0.1 than blue.

    Brightness is drawn between 0.2 - 0.1 and 0.9 + 0.1, the latter bounded by 1 - 0.02. Over 200
    draws each structure is found below 0.3 and above 0.8, and the first is the brighter one in
    about half of them (binomial, 100 +- 4 * 7).
    """
    means = np.array([[0.4] * 3, [0.2] * 3, [0.3] * 3, [0.55, 0.5, 0.45], [0.9] * 3], np.float32)
    random, present = numpy_generator("recast"), np.ones(5, np.bool_)
    drawn = np.stack([recast_structures(means, random, present) for _ in range(200)])
    assert np.array_equal(drawn[:, :3], np.broadcast_to(means[:3], (200, 3, 3)))
    grey = drawn[:, 3:].mean(axis=2)
    assert grey.min() >= 0.2 - MARGIN - 1e-6
    assert grey.max() <= 1 - DARKEST + 1e-6
    assert (grey.min(axis=0) < 0.3).all()
    assert (grey.max(axis=0) > 0.8).all()
    assert np.allclose(drawn[:, 3, 0] - drawn[:, 3, 2], 0.1, atol=1e-6)
    assert 72 <= int((grey[:, 0] > grey[:, 1]).sum()) <= 128


def test_the_range_is_that_of_regions_with_pixels() -> None:
    """Ground at 0.5, one structure at 0.6 and one without pixels, whose mean of 0 is no colour.

    Both are drawn between 0.5 - 0.1 and 0.6 + 0.1; with the 0 it would be from 0.02.
    """
    means = np.array([[0.5] * 3, [0.5] * 3, [0.5] * 3, [0.6] * 3, [0.0] * 3], np.float32)
    present, random = means[:, 0] > 0, numpy_generator("recast")
    drawn = np.stack([recast_structures(means, random, present)[3:] for _ in range(50)])
    assert drawn.min() >= 0.4 - 1e-6
    assert drawn.max() <= 0.7 + 1e-6


def test_a_borrowed_style_brings_no_region_without_pixels() -> None:
    """Of the other's four regions the last has no pixels, so all its features are 0.

    The first three and their areas are the other's, the last and the pose stay.
    """
    own, other = styles(2)
    absent = 3 * NUM_FEATURES
    other[absent:-POSE_SIZE] = 0
    mixed = borrowed(own, other)
    assert np.array_equal(mixed[:absent], other[:absent])
    assert np.array_equal(mixed[absent:], own[absent:])
    assert mixed.dtype == np.float32


def test_structures_that_others_lack_are_not_drawn_black() -> None:
    """All other clients lack the last structure; whatever is borrowed, its texture stays ours."""
    given = styles(6)
    lacking = styles(6)
    lacking[:, 3 * NUM_FEATURES : -POSE_SIZE] = 0
    mixed, _ = diversify_style(given, [lacking], share=1.0, random=numpy_generator("mix"))
    last = mixed[:, :-POSE_SIZE].reshape(6, 4, NUM_FEATURES)[:, 3]
    assert (last[:, DEVIATION] > 0).all()
    assert (last[:, FINE] > 0).all()
