"""A picture of predictions: for each site an image, its mask and what the model made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dsfedmed_ray.data.samples import to_batch
from dsfedmed_ray.evaluation.evaluator import Predict
from dsfedmed_ray.evaluation.metrics import dice_scores, predicted_masks
from dsfedmed_ray.records import MaskArray, Sample
from dsfedmed_ray.run_directory import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SITES = 8
MAX_IMAGES = 16
"""Images of a site among which the one of median Dice is looked for."""

MASK_COLORS = ("#ffb000", "#ff6f61", "#c77dff", "#7ae582")
PREDICTION_COLORS = ("#3de0d0", "#5aa9ff", "#ffffff", "#f9f871")
"""By structure; outlines of masks are warm, those of predictions cool."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A model's answer to one image.

    Attributes:
        sample: the image and its mask.
        mask: what was predicted, ``uint8 [height, width, structures]`` of 0 and 1.
        dice: mean over the structures, in [0, 1].
    """

    sample: Sample
    mask: MaskArray
    dice: float


def median_prediction(predict: Predict, samples: Sequence[Sample]) -> Prediction:
    """The prediction of median Dice among a site's first images: neither a show piece nor a slip.

    Args:
        predict: the model.
        samples: of one site, at least one.
    """
    found = []
    for index in range(min(len(samples), MAX_IMAGES)):
        images, masks = to_batch([samples[index]])
        with torch.no_grad():
            logits = predict(images).float().cpu()
        mask = predicted_masks(logits)[0].permute(1, 2, 0).numpy().astype(np.uint8)
        dice = dice_scores(logits, masks).mean().item()
        found.append(Prediction(sample=samples[index], mask=mask, dice=dice))
    found.sort(key=lambda prediction: prediction.dice)
    return found[(len(found) - 1) // 2]


def draw_predictions(predictions: Mapping[str, Prediction], path: Path) -> None:
    """Draws one column a site: image, outline of the mask, outline of the prediction.

    Args:
        predictions: by site; the last :data:`MAX_SITES` are drawn, so name the unseen site last.
        path: of the PNG file.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shown = dict(list(predictions.items())[-MAX_SITES:])
    width = 10 / max(len(shown), 4)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(width * len(shown) + 0.3, 3 * width + 0.5), layout=layout)
    panels = figure.subplots(3, len(shown), squeeze=False)
    for column, (site, prediction) in enumerate(shown.items()):
        sample = prediction.sample
        _draw(panels[0, column], sample.image, None, ())
        _draw(panels[1, column], sample.image, sample.mask, MASK_COLORS)
        _draw(panels[2, column], sample.image, prediction.mask, PREDICTION_COLORS)
        panels[0, column].set_title(site, fontsize=8, loc="left")
        panels[2, column].set_xlabel(f"Dice {prediction.dice:.3f}", fontsize=8, loc="left")
    for row, name in enumerate(("image", "mask", "prediction")):
        panels[row, 0].set_ylabel(name, fontsize=8)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=180, format="png"))


def _draw(
    panel: "Axes", image: NDArray[np.uint8], mask: MaskArray | None, colors: Sequence[str]
) -> None:
    panel.imshow(image, interpolation="nearest")
    if mask is not None:
        for structure in range(mask.shape[2]):
            if 0 < mask[..., structure].mean() < 1:  # an outline needs both sides
                panel.contour(
                    mask[..., structure],
                    levels=[0.5],
                    colors=[colors[structure % len(colors)]],
                    linewidths=1.1,
                )
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
