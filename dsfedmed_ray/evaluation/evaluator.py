"""Scores a model on the images of a site, and sites together."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dsfedmed_ray.data.samples import to_batch
from dsfedmed_ray.errors import DataError, NonFiniteStateError
from dsfedmed_ray.evaluation.metrics import image_scores, overlap_scores
from dsfedmed_ray.records import Sample, SegmentationScores
from dsfedmed_ray.summary import MEAN, Scores

Predict = Callable[
    [Float[Tensor, "batch 3 height width"]], Float[Tensor, "batch structures height width"]
]
"""From images in [0, 1] to logits, for example a model in evaluation mode."""


def score(
    predict: Predict, samples: Sequence[Sample], *, batch_size: int, with_hd95: bool = True
) -> SegmentationScores:
    """Mean scores over the images of one site, then over the structures.

    Args:
        predict: the model.
        samples: images of one size, all with the same structures; taken batch by batch.
        batch_size: images a forward pass.
        with_hd95: False gives Dice and IoU alone, without importing MONAI; ``hd95_px`` is then NaN.

    Raises:
        DataError: there are no images.
        NonFiniteStateError: the model gave NaN.
    """
    if not len(samples):
        raise DataError("no images to score; give the split at least one image a site")
    rows = []
    with torch.no_grad():
        for batch in _batches(samples, batch_size):
            rows.append(_score_batch(predict, batch, with_hd95=with_hd95))
    dice, iou, hd95_px = torch.cat(rows).mean(dim=(0, 1)).tolist()
    return SegmentationScores(dice=dice, iou=iou, hd95_px=hd95_px, num_images=len(samples))


def mean_scores(scores: Sequence[SegmentationScores]) -> SegmentationScores:
    """The mean over sites, each site counting the same; ``num_images`` is the sum.

    Raises:
        DataError: there are no sites.
    """
    if not scores:
        raise DataError("no sites to average; score at least one site")
    return SegmentationScores(
        dice=math.fsum(site.dice for site in scores) / len(scores),
        iou=math.fsum(site.iou for site in scores) / len(scores),
        hd95_px=math.fsum(site.hd95_px for site in scores) / len(scores),
        num_images=sum(site.num_images for site in scores),
    )


def site_metrics(scores: Mapping[str, SegmentationScores]) -> dict[str, Scores]:
    """The entry of a summary for a group of sites: each site's scores and their mean.

    Args:
        scores: by site.

    Raises:
        DataError: there are no sites, or one is called "mean".
    """
    if MEAN in scores:
        raise DataError(f"a site is called {MEAN!r}, which reports keep for averages; rename it")
    groups = {**scores, MEAN: mean_scores(list(scores.values()))}
    return {
        site: Scores(dice=value.dice, iou=value.iou, hd95_px=value.hd95_px)
        for site, value in groups.items()
    }


def _batches(samples: Sequence[Sample], batch_size: int) -> Iterator[list[Sample]]:
    for start in range(0, len(samples), batch_size):
        stop = min(start + batch_size, len(samples))
        yield [samples[index] for index in range(start, stop)]


def _score_batch(
    predict: Predict, batch: list[Sample], *, with_hd95: bool
) -> Float[Tensor, "batch structures 3"]:
    images, masks = to_batch(batch)
    logits = predict(images).float().cpu()
    if torch.isnan(logits).any():
        raise NonFiniteStateError(
            f"the model gave NaN for a batch of images from {batch[0].sample_id!r} on; "
            "its training diverged: lower the learning rate"
        )
    if not with_hd95:
        dice, iou = overlap_scores(logits, masks)
        return torch.stack([dice, iou, torch.full_like(dice, math.nan)], dim=-1)
    scores = image_scores(logits, masks)
    return torch.stack([scores.dice, scores.iou, scores.hd95_px], dim=-1).double()
