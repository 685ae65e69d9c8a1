"""How good a client's synthetic images are, measured in every run.

These numbers need private images: they are the simulator's instruments, nothing of them travels,
and none of them enters the ledger.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dsfedmed_ray.data.samples import to_batch
from dsfedmed_ray.errors import DataError
from dsfedmed_ray.evaluation.evaluator import Predict, score
from dsfedmed_ray.evaluation.memorisation import MemorisationAudit, audit_memorisation
from dsfedmed_ray.records import Sample
from dsfedmed_ray.seeding import numpy_generator, torch_generator

Fit = Callable[[Sequence[Sample]], Predict]
"""Trains a small segmenter from scratch, always with the same seed and steps."""

Features = Callable[[Float[Tensor, "batch 3 size size"]], Float[Tensor, "batch features"]]
"""Features of images in [0, 1], a foundation model's."""

SMALLEST_DICE = 0.01
"""Denominator of ratios at least, so that a site where even real training fails stays finite."""
NUM_SUBSETS = 20
MOST_COMPARED = 32
"""Images of a set whose features are computed, which takes a foundation model's encoder."""
BATCH = 16
FEATURE_BATCH = 4  # an encoder's, whose activations are large


@dataclass(frozen=True, kw_only=True)
class ClientQuality:
    """Quality of one client's synthetic set.

    Attributes:
        real_dice: on real validation images, of a segmenter trained on real images.
        synthetic_dice: the same, trained on as many synthetic images with as many steps.
        floor_dice: the same, trained on the painting floor; None if it was not measured.
        mask_agreement: Dice between the masks that images were drawn from and what the
            real-trained segmenter sees in them.
        memorisation: the audit.
        kid: unbiased kernel distance of features of real and synthetic images; None where it was
            not measured or there are too few images. It may be slightly negative.
    """

    real_dice: float
    synthetic_dice: float
    floor_dice: float | None
    mask_agreement: float
    memorisation: MemorisationAudit
    kid: float | None = None

    @property
    def tstr_ratio(self) -> float:
        """Train on synthetic, test on real: over training on real."""
        return self.synthetic_dice / max(self.real_dice, SMALLEST_DICE)

    @property
    def floor_ratio(self) -> float | None:
        """The same ratio for the painting floor."""
        if self.floor_dice is None:
            return None
        return self.floor_dice / max(self.real_dice, SMALLEST_DICE)


def measure_client(
    *,
    train: Sequence[Sample],
    validation: Sequence[Sample],
    synthetic: Sequence[Sample],
    fit: Fit,
    painted: Sequence[Sample] = (),
    seed: int = 0,
) -> ClientQuality:
    """Measures one client; takes one fit more if ``painted`` is given.

    Args:
        train: the client's private training pairs.
        validation: its real validation pairs.
        synthetic: its synthetic set.
        fit: trains a segmenter.
        painted: the painting floor's set, from the same masks and styles.
        seed: of subsets.

    Raises:
        DataError: a set is empty.
    """
    for name, samples in (("train", train), ("validation", validation), ("synthetic", synthetic)):
        if not len(samples):
            raise DataError(
                f"the quality checks have no {name} samples; give the split and the generator at "
                "least one, or turn the checks off"
            )
    size = min(len(train), len(synthetic))
    on_real = fit(subset(train, size, seed))
    on_synthetic = fit(subset(synthetic, size, seed))
    floor_dice = None
    if len(painted):
        floor_dice = _dice(fit(subset(painted, size, seed)), validation)
    return ClientQuality(
        real_dice=_dice(on_real, validation),
        synthetic_dice=_dice(on_synthetic, validation),
        floor_dice=floor_dice,
        mask_agreement=_dice(on_real, synthetic),
        memorisation=audit_memorisation(train, validation, synthetic),
    )


def subset(samples: Sequence[Sample], size: int, seed: int) -> list[Sample]:
    """A random choice without repetition, of all if ``size`` reaches that."""
    order = numpy_generator(seed, "quality_subset", len(samples)).permutation(len(samples))
    return [samples[int(index)] for index in sorted(order[:size])]


def _dice(predict: Predict, samples: Sequence[Sample]) -> float:
    return score(predict, samples, batch_size=BATCH, with_hd95=False).dice


@torch.no_grad()
def features_of(
    features: Features, samples: Sequence[Sample], seed: int
) -> Float[Tensor, "count features"]:
    """Features of a set's images, of at most :data:`MOST_COMPARED` that the seed draws."""
    chosen = subset(samples, MOST_COMPARED, seed)
    rows = []
    for start in range(0, len(chosen), FEATURE_BATCH):
        images, _ = to_batch(chosen[start : start + FEATURE_BATCH])
        rows.append(features(images).double().cpu())
    return torch.cat(rows) if rows else torch.empty(0, 0)


def kernel_distance(
    first: Float[Tensor, "count features"],
    second: Float[Tensor, "other features"],
    *,
    seed: int,
) -> float | None:
    """Kernel inception distance of two sets of features (Binkowski et al. 2018), unbiased.

    A mean over random subsets of equal size; None where a set has fewer than four images. A
    Frechet distance would be singular on so few.
    """
    size = min(len(first), len(second))
    if size < 4:
        return None
    from torchmetrics.image.kid import poly_mmd

    random = torch_generator(seed, "kernel_distance")
    half = max(4, size * 3 // 4)
    distances = []
    for _ in range(NUM_SUBSETS):
        chosen = torch.randperm(len(first), generator=random)[:half]
        others = torch.randperm(len(second), generator=random)[:half]
        distances.append(float(poly_mmd(first[chosen], second[others])))
    return math.fsum(distances) / NUM_SUBSETS


def summarise_quality(clients: Mapping[str, ClientQuality]) -> dict[str, Any]:
    """The ``generator`` entry of ``summary.json``: means, minima and each client's numbers.

    Raises:
        DataError: there is no client.
    """
    if not clients:
        raise DataError("no client's synthetic set was measured; measure at least one")
    values = list(clients.values())
    ratios = [client.tstr_ratio for client in values]
    summary: dict[str, Any] = {
        "tstr_ratio": _mean(ratios),
        "tstr_ratio_min": min(ratios),
        "mask_agreement": _mean([client.mask_agreement for client in values]),
        "memorisation": {
            "ratio": min(client.memorisation.ratio for client in values),
            "flag": any(client.memorisation.flag for client in values),
        },
        "clients": {name: client_summary(client) for name, client in clients.items()},
    }
    floors = [client.floor_ratio for client in values if client.floor_ratio is not None]
    if floors:
        summary["floor_ratio"] = _mean(floors)
    distances = [client.kid for client in values if client.kid is not None]
    if distances:
        summary["kid"] = _mean(distances)
    return summary


def client_summary(client: ClientQuality) -> dict[str, Any]:
    """One client's numbers, those that were measured."""
    numbers = {
        "real_dice": client.real_dice,
        "synthetic_dice": client.synthetic_dice,
        "tstr_ratio": client.tstr_ratio,
        "floor_ratio": client.floor_ratio,
        "mask_agreement": client.mask_agreement,
        "kid": client.kid,
        "memorisation_ratio": client.memorisation.ratio,
        "copy_share": client.memorisation.copy_share,
        "memorisation_flag": client.memorisation.flag,
    }
    return {name: value for name, value in numbers.items() if value is not None}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
