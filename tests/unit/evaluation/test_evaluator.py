"""Expected numbers are derived by hand; a model is a function that answers with given logits."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dsfedmed_ray.errors import DataError, NonFiniteStateError
from dsfedmed_ray.evaluation.evaluator import mean_scores, score, site_metrics
from dsfedmed_ray.records import Sample, SegmentationScores


def sample(name: str, *, brightness: int, positive: tuple[int, ...]) -> Sample:
    """An image of one grey value; its mask's structures are full (1) or empty (0)."""
    mask = np.zeros((6, 8, len(positive)), np.uint8)
    mask[:] = positive
    return Sample(sample_id=name, image=np.full((6, 8, 3), brightness, np.uint8), mask=mask)


def bright_is_positive(images: Tensor) -> Tensor:
    """One structure: everything brighter than one half."""
    return images[:, :1] * 10 - 5


SAMPLES = [
    sample("a", brightness=255, positive=(1,)),
    sample("b", brightness=0, positive=(1,)),
    sample("c", brightness=0, positive=(0,)),
]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_mean_over_images(batch_size: int) -> None:
    """Right, empty prediction, both empty: Dice and IoU 1, 0, 1; HD95 0, hypot(6, 8) = 10, 0."""
    scores = score(bright_is_positive, SAMPLES, batch_size=batch_size)
    assert scores.num_images == 3
    assert (scores.dice, scores.iou) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert scores.hd95_px == pytest.approx(10 / 3)


def test_without_distances() -> None:
    scores = score(bright_is_positive, SAMPLES, batch_size=2, with_hd95=False)
    assert scores.dice == pytest.approx(2 / 3)
    assert math.isnan(scores.hd95_px)


def test_mean_over_structures() -> None:
    """Structure 0 is right and structure 1 is wrong in one image of two: (1 + 0.5) / 2."""
    samples = [
        sample("a", brightness=255, positive=(1, 1)),
        sample("b", brightness=255, positive=(1, 0)),
    ]
    scores = score(
        lambda images: bright_is_positive(images).expand(-1, 2, -1, -1), samples, batch_size=4
    )
    assert scores.dice == pytest.approx(0.75)


def test_images_are_scaled_to_one() -> None:
    seen = []

    def predict(images: Tensor) -> Tensor:
        seen.append((tuple(images.shape), images.dtype, images.min().item(), images.max().item()))
        return bright_is_positive(images)

    score(predict, SAMPLES, batch_size=3, with_hd95=False)
    assert seen == [((3, 3, 6, 8), torch.float32, 0.0, 1.0)]


def test_no_images() -> None:
    with pytest.raises(DataError, match="no images to score; give the split at least one image"):
        score(bright_is_positive, [], batch_size=2)


def test_diverged_model() -> None:
    with pytest.raises(NonFiniteStateError, match="gave NaN for a batch of images from 'a' on"):
        score(lambda images: images[:, :1] * math.nan, SAMPLES, batch_size=2)


def scores_of(dice: float, num_images: int) -> SegmentationScores:
    return SegmentationScores(dice=dice, iou=dice / 2, hd95_px=10 * dice, num_images=num_images)


def test_sites_count_the_same() -> None:
    """0.4 over 1 image and 0.8 over 99 have the mean 0.6."""
    mean = mean_scores([scores_of(0.4, 1), scores_of(0.8, 99)])
    assert (mean.dice, mean.iou, mean.hd95_px) == pytest.approx((0.6, 0.3, 6.0))
    assert mean.num_images == 100


def test_no_sites() -> None:
    with pytest.raises(DataError, match="no sites to average; score at least one site"):
        mean_scores([])


def test_site_metrics() -> None:
    metrics = site_metrics({"north": scores_of(0.4, 1), "south": scores_of(0.8, 9)})
    assert list(metrics) == ["north", "south", "mean"]
    assert metrics["mean"] == pytest.approx({"dice": 0.6, "iou": 0.3, "hd95_px": 6.0})


def test_a_site_called_mean() -> None:
    with pytest.raises(DataError, match=r"a site is called 'mean'.*rename it"):
        site_metrics({"mean": scores_of(0.4, 1)})
