"""The picture of real and synthetic pairs."""

from pathlib import Path

import numpy as np
from PIL import Image

from dsfedmed_ray.evaluation.synthetic_figure import (
    GAP_PX,
    ClientImages,
    client_block,
    draw_synthetic,
    mask_image,
)
from dsfedmed_ray.records import StyleOrigin, SyntheticSample


def sample(level: int, style_origin: StyleOrigin = "client") -> SyntheticSample:
    mask = np.zeros((8, 8, 2), np.uint8)
    mask[:4, :, 0] = 1
    mask[:2, :, 1] = 1
    return SyntheticSample(
        sample_id="a",
        image=np.full((8, 8, 3), level, np.uint8),
        mask=mask,
        client="a",
        mask_origin="client",
        style_origin=style_origin,
        seed=0,
    )


def test_later_structures_are_brighter() -> None:
    grey = mask_image(sample(0).mask)
    assert grey[[0, 2, 6], 0, 0].tolist() == [254, 127, 0]


def test_block_has_four_rows() -> None:
    images = ClientImages(real=[sample(10)], synthetic=[sample(20), sample(30)])
    block = client_block(images, columns=2, with_shifted=False)
    step = 8 + GAP_PX
    assert block.shape == (4 * step, 2 * step, 3)
    assert block[step, 0, 0] == 10
    assert block[step, step, 0] == 255  # there is no second real image
    assert block[3 * step, step, 0] == 30


def test_shifted_styles_have_a_row_of_their_own() -> None:
    """Of levels 20, 30 and 40 the second is shifted: row 3 shows 20 and 40, row 4 shows 30."""
    synthetic = [sample(20), sample(30, "shifted"), sample(40)]
    images = ClientImages(real=[sample(10)], synthetic=synthetic)
    block = client_block(images, columns=2, with_shifted=True)
    step = 8 + GAP_PX
    assert block.shape == (5 * step, 2 * step, 3)
    assert [int(block[row * step, column * step, 0]) for row in (3, 4) for column in (0, 1)] == [
        20,
        40,
        30,
        255,
    ]


def test_picture_is_written(tmp_path: Path) -> None:
    images = ClientImages(real=[sample(10)], synthetic=[sample(20)])
    path = tmp_path / "figures" / "synthetic.png"
    draw_synthetic({"a": images, "b": images}, path, columns=2)
    with Image.open(path) as picture:
        assert picture.width > picture.height / 2
