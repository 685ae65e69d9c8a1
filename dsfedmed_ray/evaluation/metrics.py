"""Dice, IoU and HD95 of binary masks, one value an image and structure.

A pixel is predicted where its probability is at least 0.5. The rules for empty masks, the same for
every function here:

==================  ====  ===  ==========================
prediction, mask    Dice  IoU  HD95
==================  ====  ===  ==========================
both empty          1     1    0 pixels
exactly one empty   0     0    the image's diagonal, the
                               worst that can be said
==================  ====  ===  ==========================

MONAI computes the reported scores. Importing it takes seconds, so it is imported on first use, and
:func:`overlap_scores` gives Dice and IoU in plain torch for the validation after every round.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from dsfedmed_ray.models.monai_import import monai_module

PROBABILITY_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class ImageScores:
    """Scores of a batch.

    Attributes:
        dice: in [0, 1].
        iou: in [0, 1].
        hd95_px: 95th percentile of the symmetric Hausdorff distance of the outlines, pixels.
    """

    dice: Float[Tensor, "batch structures"]
    iou: Float[Tensor, "batch structures"]
    hd95_px: Float[Tensor, "batch structures"]


def predicted_masks(
    logits: Float[Tensor, "batch structures height width"],
) -> Bool[Tensor, "batch structures height width"]:
    """True where the probability ``sigmoid(logits)`` is at least 0.5."""
    return torch.sigmoid(logits) >= PROBABILITY_THRESHOLD


def overlap_scores(
    logits: Float[Tensor, "batch structures height width"],
    masks: Num[Tensor, "batch structures height width"],
) -> tuple[Float[Tensor, "batch structures"], Float[Tensor, "batch structures"]]:
    """Dice ``2|P & M| / (|P| + |M|)`` and IoU ``|P & M| / |P | M|`` without MONAI.

    Args:
        logits: of the model.
        masks: 0 and 1.

    Returns:
        Dice and IoU, float64.
    """
    predicted, given = predicted_masks(logits), masks > 0
    common = (predicted & given).sum((-2, -1)).double()
    either = (predicted | given).sum((-2, -1)).double()
    both_empty = either == 0
    dice = torch.where(both_empty, 1.0, 2 * common / (common + either).clamp(min=1))
    iou = torch.where(both_empty, 1.0, common / either.clamp(min=1))
    return dice, iou


def dice_scores(
    logits: Float[Tensor, "batch structures height width"],
    masks: Num[Tensor, "batch structures height width"],
) -> Float[Tensor, "batch structures"]:
    """Dice alone, without MONAI; float64."""
    return overlap_scores(logits, masks)[0]


def image_scores(
    logits: Float[Tensor, "batch structures height width"],
    masks: Num[Tensor, "batch structures height width"],
) -> ImageScores:
    """Dice, IoU and HD95 through MONAI.

    Args:
        logits: of the model.
        masks: 0 and 1.
    """
    monai_metrics = monai_module("monai.metrics")
    predicted, given = predicted_masks(logits).float(), (masks > 0).float()
    return ImageScores(
        dice=monai_metrics.compute_dice(predicted, given, ignore_empty=False),
        iou=monai_metrics.compute_iou(predicted, given, ignore_empty=False),
        hd95_px=_hd95(predicted, given),
    )


def _hd95(
    predicted: Float[Tensor, "batch structures height width"],
    given: Float[Tensor, "batch structures height width"],
) -> Float[Tensor, "batch structures"]:
    has_prediction, has_mask = predicted.any(-1).any(-1), given.any(-1).any(-1)
    diagonal_px = math.hypot(*predicted.shape[-2:])
    distances = torch.where(has_prediction == has_mask, 0.0, diagonal_px)
    # MONAI answers NaN or infinity, with a warning, where an outline is missing: it never sees one.
    both = has_prediction & has_mask
    if both.any():
        distances[both] = _hd95_of_outlines(predicted[both], given[both])
    return distances


def _hd95_of_outlines(
    predicted: Float[Tensor, "num height width"], given: Float[Tensor, "num height width"]
) -> Float[Tensor, " num"]:
    compute_hausdorff_distance = monai_module("monai.metrics").compute_hausdorff_distance
    with warnings.catch_warnings():
        # MONAI 1.6 warns of an argument that it gives to itself.
        warnings.filterwarnings("ignore", ".*always_return_as_numpy.*", FutureWarning)
        return compute_hausdorff_distance(
            predicted.unsqueeze(1), given.unsqueeze(1), include_background=True, percentile=95
        ).squeeze(1)
