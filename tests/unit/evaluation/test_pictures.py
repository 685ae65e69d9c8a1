"""Which image is shown, and that it is drawn."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from dsfedmed_ray.evaluation.pictures import Prediction, draw_predictions, median_prediction
from dsfedmed_ray.records import Sample


def sample(name: str, num_columns: int, structures: int = 1) -> Sample:
    """The mask covers the first columns of 10; the image is bright in its first 4."""
    mask = np.zeros((10, 10, structures), np.uint8)
    mask[:, :num_columns] = 1
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, :4] = 255
    return Sample(sample_id=name, image=image, mask=mask)


def bright(images: Tensor) -> Tensor:
    return images[:, :1] - 0.5


def test_median_of_three() -> None:
    """Predicted are 4 columns: Dice 8/8, 8/12 and 8/9 for masks of 4, 8 and 5 columns."""
    shown = median_prediction(bright, [sample("a", 4), sample("b", 8), sample("c", 5)])
    assert shown.sample.sample_id == "c"
    assert round(shown.dice, 4) == round(8 / 9, 4)
    assert shown.mask.shape == (10, 10, 1)
    assert shown.mask.dtype == np.uint8
    assert shown.mask[:, :4].all()
    assert not shown.mask[:, 4:].any()


def test_lower_of_two() -> None:
    shown = median_prediction(bright, [sample("a", 4), sample("b", 8)])
    assert shown.sample.sample_id == "b"


def test_drawn(tmp_path: Path) -> None:
    """Ten sites of two structures, some empty or full: no outline, no warning."""
    predictions = {
        f"site_{count}": Prediction(
            sample=sample("a", count, structures=2), mask=sample("a", 4, 2).mask, dice=0.5
        )
        for count in range(1, 11)
    }
    draw_predictions(predictions, tmp_path / "figures" / "predictions.png")
    with Image.open(tmp_path / "figures" / "predictions.png") as picture:
        assert picture.width > 2 * picture.height
