"""TSTR, agreement and kernel distance with stand-ins for training."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from dsfedmed_ray.errors import DataError
from dsfedmed_ray.evaluation.evaluator import Predict
from dsfedmed_ray.evaluation.memorisation import MemorisationAudit
from dsfedmed_ray.evaluation.synthesis_quality import (
    MOST_COMPARED,
    ClientQuality,
    Features,
    features_of,
    kernel_distance,
    measure_client,
    subset,
    summarise_quality,
)
from dsfedmed_ray.records import Sample
from dsfedmed_ray.seeding import numpy_generator


def columns(name: str, bright: int, masked: int, seed: int = 0) -> Sample:
    """The first ``bright`` of 10 columns are bright, the first ``masked`` are in the mask."""
    image = numpy_generator("pixels", seed).integers(0, 60, (10, 10, 3)).astype(np.uint8)
    image[:, :bright] = 255
    mask = np.zeros((10, 10, 1), np.uint8)
    mask[:, :masked] = 1
    return Sample(sample_id=name, image=image, mask=mask)


def fit(samples: Sequence[Sample]) -> Predict:
    """Predicts what is bright; one trained on painted samples sees every second column only."""
    painted = samples[0].sample_id.startswith("painted")

    def predict(images: Tensor) -> Tensor:
        logits = images[:, :1] - 0.5
        if painted:
            logits[..., ::2] = -1
        return logits

    return predict


def test_one_client() -> None:
    """Real: 4 of 4 columns found, Dice 1. Synthetic masks show 4 where 8 are meant: 8/12.

    The floor's model finds columns 1 and 3 of 4: Dice 2 * 2 / (2 + 4) = 2/3.
    """
    real = [columns(str(seed), 4, 4, seed) for seed in range(6)]
    quality = measure_client(
        train=real,
        validation=real[:3],
        synthetic=[columns("synthetic", 4, 8, seed) for seed in range(20, 26)],
        painted=[columns("painted", 4, 4)] * 6,
        fit=fit,
    )
    assert quality.tstr_ratio == pytest.approx(1.0)
    assert quality.floor_ratio == pytest.approx(2 / 3)
    assert quality.mask_agreement == pytest.approx(8 / 12)
    assert quality.kid is None


def test_real_and_synthetic_sets_have_equal_sizes() -> None:
    sizes = []

    def counting_fit(samples: Sequence[Sample]) -> Predict:
        sizes.append(len(samples))
        return fit(samples)

    real = [columns(str(seed), 4, 4, seed) for seed in range(6)]
    measure_client(train=real, validation=real, synthetic=real[:4], painted=real, fit=counting_fit)
    assert sizes == [4, 4, 4]


def test_subset_is_a_choice_without_repetition() -> None:
    real = [columns(str(seed), 4, 4, seed) for seed in range(6)]
    chosen = [sample.sample_id for sample in subset(real, 4, seed=0)]
    assert len(set(chosen)) == 4
    assert chosen == sorted(chosen)
    assert len(subset(real, 9, seed=0)) == 6


def test_kernel_distance_tells_sets_apart() -> None:
    def seen(samples: list[Sample]) -> Tensor:
        return features_of(lambda images: images.mean(dim=(2, 3)) * 10, samples, seed=0)

    dark = seen([columns(str(seed), 0, 1, seed) for seed in range(8)])
    bright = seen([columns(str(seed), 9, 1, seed) for seed in range(8)])
    assert dark.shape == bright.shape == (8, 3)
    near = kernel_distance(dark, dark, seed=0)
    far = kernel_distance(dark, bright, seed=0)
    assert near is not None
    assert far is not None
    assert far > 10 * abs(near)
    assert kernel_distance(dark[:3], bright, seed=0) is None


def test_features_of_a_large_set_are_those_of_a_part() -> None:
    """33 images, of which 32 are looked at; of none there are none."""
    mean: Features = lambda images: images.mean(dim=(2, 3))  # noqa: E731
    many = [columns(str(seed), 0, 1, seed) for seed in range(MOST_COMPARED + 1)]
    assert features_of(mean, many, seed=0).shape == (MOST_COMPARED, 3)
    assert len(features_of(mean, [], seed=0)) == 0


def quality(synthetic_dice: float, *, flag: bool = False) -> ClientQuality:
    return ClientQuality(
        real_dice=0.8,
        synthetic_dice=synthetic_dice,
        floor_dice=None,
        mask_agreement=0.9,
        memorisation=MemorisationAudit(ratio=0.5 if flag else 1.0, copy_share=0.0, flag=flag),
    )


def test_summary_has_means_and_minima() -> None:
    """Ratios 0.8/0.8 = 1 and 0.6/0.8 = 0.75."""
    summary = summarise_quality({"a": quality(0.8), "b": quality(0.6, flag=True)})
    assert summary["tstr_ratio"] == pytest.approx(0.875)
    assert summary["tstr_ratio_min"] == pytest.approx(0.75)
    assert summary["memorisation"] == {"ratio": 0.5, "flag": True}
    assert "kid" not in summary
    assert "floor_ratio" not in summary["clients"]["a"]


def test_hopeless_site_stays_finite() -> None:
    hopeless = ClientQuality(
        real_dice=0.0,
        synthetic_dice=0.005,
        floor_dice=0.0,
        mask_agreement=0.0,
        memorisation=MemorisationAudit(ratio=1.0, copy_share=0.0, flag=False),
    )
    assert hopeless.tstr_ratio == pytest.approx(0.5)


def test_missing_samples() -> None:
    with pytest.raises(DataError, match="the quality checks have no validation samples"):
        measure_client(train=[columns("a", 1, 1)], validation=[], synthetic=[], fit=fit)
    with pytest.raises(DataError, match="no client's synthetic set was measured"):
        summarise_quality({})


def test_torch_global_stream_is_untouched() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    dark = [columns(str(seed), 0, 1, seed) for seed in range(8)]
    features = features_of(lambda images: images.mean(dim=(2, 3)), dark, seed=0)
    kernel_distance(features, features, seed=0)
    assert torch.equal(torch.rand(1), expected)
