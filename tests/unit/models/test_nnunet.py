"""The planned U-Net: nnU-Net's rules by hand, and what leaves a client."""

import numpy as np
import pytest
import torch

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.nnunet import (
    Fingerprint,
    NnUNetConfig,
    content_size,
    fingerprint_of,
    merge_fingerprints,
    plan_strides,
    weighted_median,
)
from dsfedmed_ray.records import Sample


def test_square_pixels_are_halved_down_to_four() -> None:
    """64, 32, 16, 8, 4: four halvings."""
    assert plan_strides((64, 64), (1, 1)) == [(1, 1)] + [(2, 2)] * 4


def test_a_coarse_axis_waits_for_the_other() -> None:
    """Spacing 4 against 1: two halvings of columns alone, until 4 against 4, then both.

    Columns 64, 32, 16, 8, 4; rows 64, 64, 64, 32, 16; then rows alone: 16 is at least 12, 8 is not.
    """
    strides = plan_strides((64, 64), (4, 1))
    assert strides == [(1, 1), (1, 2), (1, 2), (2, 2), (2, 2), (2, 1)]


def test_channels_double_up_to_a_bound() -> None:
    plan = NnUNetConfig().plan(512)
    assert len(plan.strides) == 8
    assert plan.channels == (32, 64, 128, 256, 512, 512, 512, 512)


def test_the_content_is_planned_for_not_its_padding() -> None:
    """16 x 64 of 64 x 64 pixels: 16, 8, 4 and 64, 32, 16, 8, 4, the last two for columns alone.

    After two common halvings the rows' spacing is 4 against the columns' 4; rows of 4 pixels stay.
    Columns alone go from 16 to 8, but 8 is below 12.
    """
    wide = Fingerprint(num_pairs=1, height_px=16, width_px=64)
    strides = NnUNetConfig(fingerprint=wide).plan(64).strides
    assert strides == ((1, 1), (2, 2), (2, 2), (1, 2))
    model = NnUNetConfig(fingerprint=wide, base_channels=4).build(
        num_structures=1, image_size=64, seed=0
    )
    assert model.reduction == (4, 8)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_borders_of_zeros_are_no_content() -> None:
    """Rows 2 to 5 and columns 1 to 7, a zero inside included; an empty image keeps its size."""
    image = np.zeros((8, 9, 3), np.uint8)
    image[2, 1, 0] = image[5, 7, 2] = 9
    assert content_size(image) == (4, 7)
    assert content_size(np.zeros((8, 9, 3), np.uint8)) == (8, 9)


def test_logits_have_the_images_size() -> None:
    """Three halvings divide 40; 41 is padded to 48 on the way."""
    for image_size in (40, 41):
        config = NnUNetConfig(base_channels=4)
        model = config.build(num_structures=2, image_size=image_size, seed=0).eval()
        images = torch.rand(2, 3, image_size, image_size)
        assert model(images).shape == (2, 2, image_size, image_size)


def test_untrained_network_expects_the_foreground_prior() -> None:
    """With the network's own output at 0, every probability is the prior, as for the U-Net."""
    config = NnUNetConfig(base_channels=4, foreground_prior=0.2)
    model = config.build(num_structures=1, image_size=32, seed=0).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.allclose(model(torch.rand(1, 3, 32, 32)).sigmoid(), torch.tensor(0.2))
    with pytest.raises(ConfigurationError, match=r"foreground_prior is 0.0; allowed: between"):
        NnUNetConfig(foreground_prior=0.0)


def test_gain_and_offset_of_an_image_do_not_matter() -> None:
    model = NnUNetConfig(base_channels=4).build(num_structures=1, image_size=32, seed=0).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(images), model(images * 0.3 + 0.1), atol=1e-4, rtol=1e-4)


def test_weighted_median() -> None:
    """Weights 1, 1, 3 at 10, 20, 30: half of 5 is passed at 30; with 3, 1, 1 at 10."""
    values = np.array([30.0, 10.0, 20.0])
    assert weighted_median(values, np.array([3, 1, 1])) == 30
    assert weighted_median(values, np.array([1, 3, 1])) == 10


def test_only_five_numbers_leave_a_client() -> None:
    site = Fingerprint(num_pairs=7, height_px=256, width_px=200, row_spacing_mm=0.5)
    sent = site.to_array()
    assert sent.nbytes == 40
    assert Fingerprint.from_array(sent) == site


def test_fingerprint_of_a_client() -> None:
    """Heights 8, 8 and 32, widths 8, 16 and 16."""
    samples = [
        Sample(
            sample_id=str(index),
            image=np.ones((height, width, 3), np.uint8),
            mask=np.zeros((height, width, 1), np.uint8),
        )
        for index, (height, width) in enumerate([(8, 8), (8, 16), (32, 16)])
    ]
    expected = Fingerprint(num_pairs=3, height_px=8, width_px=16, row_spacing_mm=2.0)
    assert fingerprint_of(samples, row_spacing_mm=2.0) == expected


def test_merging() -> None:
    """10 + 2 + 3 pairs; the large client holds more than half of the weight."""
    sites = [
        Fingerprint(num_pairs=n, height_px=size, width_px=size)
        for n, size in ((10, 128), (2, 512), (3, 64))
    ]
    assert merge_fingerprints(sites) == Fingerprint(num_pairs=15, height_px=128, width_px=128)


def test_bad_values() -> None:
    with pytest.raises(ConfigurationError, match=r"image_size 8 is too small .* at least 16"):
        NnUNetConfig().plan(8)
    with pytest.raises(ConfigurationError, match=r"base_channels is 64; .* max_channels = 32"):
        NnUNetConfig(base_channels=64, max_channels=32)
    with pytest.raises(ConfigurationError, match="is not positive"):
        Fingerprint(num_pairs=0, height_px=1, width_px=1)
    with pytest.raises(ConfigurationError, match="is not positive"):
        fingerprint_of([])
    with pytest.raises(ValueError, match="no fingerprints"):
        merge_fingerprints([])
