"""Expected numbers are derived by hand from masks of a few pixels."""

import math
import subprocess
import sys
import warnings

import pytest
import torch
from torch import Tensor

from dsfedmed_ray.evaluation.metrics import (
    dice_scores,
    image_scores,
    overlap_scores,
    predicted_masks,
)

HEIGHT, WIDTH = 12, 16
DIAGONAL_PX = 20.0  # 12-16-20 is a right triangle


def mask_of(*pixels: tuple[int, int]) -> Tensor:
    """A mask ``[1, 1, 12, 16]`` with the given (row, column) pixels set."""
    mask = torch.zeros(1, 1, HEIGHT, WIDTH)
    for row, column in pixels:
        mask[0, 0, row, column] = 1
    return mask


def logits_of(*pixels: tuple[int, int]) -> Tensor:
    """Logits of +3 at the given pixels and -3 elsewhere."""
    return mask_of(*pixels) * 6 - 3


def test_threshold_is_on_probabilities() -> None:
    """Sigmoid maps logit 0 to 0.5, which counts, and logit 0.4, which the wrong scale drops."""
    logits = torch.tensor([-3.0, -0.01, 0.0, 0.4, 3.0]).reshape(1, 1, 1, 5)
    assert predicted_masks(logits).flatten().tolist() == [False, False, True, True, True]


def test_overlap_by_hand() -> None:
    """|P| = 3, |M| = 2, |P & M| = 1: Dice = 2/5, IoU = 1/4."""
    logits, mask = logits_of((0, 0), (0, 1), (0, 2)), mask_of((0, 2), (0, 3))
    scores = image_scores(logits, mask)
    assert scores.dice.item() == pytest.approx(0.4)
    assert scores.iou.item() == pytest.approx(0.25)


def test_hd95_of_two_pixels() -> None:
    """Pixels 3 rows and 4 columns apart are 5 pixels apart, both ways."""
    assert image_scores(logits_of((2, 2)), mask_of((5, 6))).hd95_px.item() == pytest.approx(5)


def test_hd95_is_the_95th_percentile_and_symmetric() -> None:
    """Distances from {0, 10} to {0} are 0 and 10; between them the percentile is 9.5, not 10.

    The other way the only distance is 0, and the larger of the two counts.
    """
    one, two = ((5, 2),), ((5, 2), (5, 12))
    assert image_scores(logits_of(*two), mask_of(*one)).hd95_px.item() == pytest.approx(9.5)
    assert image_scores(logits_of(*one), mask_of(*two)).hd95_px.item() == pytest.approx(9.5)


def test_no_warning_reaches_the_user() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_scores(logits_of((2, 2)), mask_of((5, 6)))
        image_scores(logits_of(), mask_of((5, 6)))


def test_perfect_prediction() -> None:
    square = [(row, column) for row in range(3, 7) for column in range(3, 7)]
    scores = image_scores(logits_of(*square), mask_of(*square))
    assert (scores.dice.item(), scores.iou.item(), scores.hd95_px.item()) == (1, 1, 0)


@pytest.mark.parametrize(
    ("predicted", "given", "expected"),
    [
        ((), (), (1, 1, 0)),
        ((), ((1, 1),), (0, 0, DIAGONAL_PX)),
        (((1, 1),), (), (0, 0, DIAGONAL_PX)),
    ],
    ids=["both empty", "empty prediction", "empty mask"],
)
def test_empty_masks(predicted: tuple, given: tuple, expected: tuple) -> None:
    scores = image_scores(logits_of(*predicted), mask_of(*given))
    assert (scores.dice.item(), scores.iou.item(), scores.hd95_px.item()) == expected
    dice, iou = overlap_scores(logits_of(*predicted), mask_of(*given))
    assert (dice.item(), iou.item()) == expected[:2]


def test_batches_and_structures_stay_apart() -> None:
    """Each of 2 x 2 masks has its own value, the empty ones included."""
    logits = torch.cat([logits_of((1, 1)), logits_of()], dim=1).repeat(2, 1, 1, 1)
    masks = torch.stack(
        [torch.cat([mask_of((1, 1))[0], mask_of()[0]]), torch.cat([mask_of()[0], mask_of()[0]])]
    )
    scores = image_scores(logits, masks)
    assert scores.dice.tolist() == [[1, 1], [0, 1]]
    assert scores.hd95_px.tolist() == [[0, 0], [DIAGONAL_PX, 0]]


def test_plain_scores_equal_monai() -> None:
    """Random masks, some of them empty, as float and as uint8."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 2, 9, 11, generator=generator)
    masks = (torch.randn(6, 2, 9, 11, generator=generator) > 0.5).to(torch.uint8)
    masks[0], logits[0, 0], logits[1, 1] = 0, -5, -5
    reported = image_scores(logits, masks)
    dice, iou = overlap_scores(logits, masks)
    torch.testing.assert_close(dice, reported.dice.double())
    torch.testing.assert_close(iou, reported.iou.double())
    assert torch.equal(dice_scores(logits, masks), dice)


def test_hd95_is_never_beyond_the_diagonal() -> None:
    """The farthest two pixels are ``hypot(11, 15)`` apart: the empty rule is always worse."""
    corners = image_scores(logits_of((0, 0)), mask_of((HEIGHT - 1, WIDTH - 1))).hd95_px.item()
    assert corners == pytest.approx(math.hypot(11, 15))
    assert corners < DIAGONAL_PX


def test_plain_scores_do_not_import_monai() -> None:
    code = (
        "import sys, torch\n"
        "from dsfedmed_ray.evaluation.metrics import dice_scores\n"
        "dice_scores(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))\n"
        "sys.exit('monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
