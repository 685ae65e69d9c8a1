"""The audit raises its flag on copies and stays quiet on new images."""

import numpy as np
import pytest

from dsfedmed_ray.errors import DataError
from dsfedmed_ray.evaluation.memorisation import audit_memorisation
from dsfedmed_ray.records import Sample
from dsfedmed_ray.seeding import numpy_generator


def blob_images(count: int, seed: int) -> list[Sample]:
    """A bright square at a random place on a dark ground."""
    random = numpy_generator("blobs", seed)
    samples = []
    for index in range(count):
        image = random.integers(0, 20, (64, 64, 3)).astype(np.uint8)
        row, column = random.integers(0, 44, 2)
        image[row : row + 20, column : column + 20] = 200
        mask = (image[..., :1] > 100).astype(np.uint8)
        samples.append(Sample(sample_id=f"{seed}-{index}", image=image, mask=mask))
    return samples


def test_new_images_are_as_far_as_held_out_ones() -> None:
    audit = audit_memorisation(blob_images(40, 0), blob_images(30, 1), blob_images(40, 2))
    assert audit.ratio == pytest.approx(1.0, abs=0.3)
    assert not audit.flag


def test_copies_are_flagged_even_when_mirrored_or_grained() -> None:
    train = blob_images(20, 0)
    random = numpy_generator("grain")
    copies = []
    for sample in train:
        grain = random.integers(-15, 16, sample.image.shape)
        image = np.clip(sample.image[:, ::-1].astype(int) + grain, 0, 255).astype(np.uint8)
        copies.append(Sample(sample_id="copy", image=image, mask=sample.mask))
    audit = audit_memorisation(train, blob_images(20, 1), copies)
    assert audit.flag
    assert audit.ratio < 0.3
    assert audit.copy_share == 1.0


def test_a_few_copies_among_new_images_are_flagged() -> None:
    """4 of 24 images are copies: the median looks fine, the share of one sixth does not."""
    train = blob_images(20, 0)
    audit = audit_memorisation(train, blob_images(20, 1), blob_images(20, 2) + train[:4])
    assert audit.ratio > 0.7
    assert audit.copy_share >= 4 / 24
    assert audit.flag


def test_empty_set() -> None:
    with pytest.raises(DataError, match="the memorisation audit needs training, held-out and syn"):
        audit_memorisation(blob_images(2, 0), [], blob_images(2, 1))
