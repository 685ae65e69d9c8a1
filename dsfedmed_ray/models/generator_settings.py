"""Settings that every generator shares, whatever its backbone."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from dsfedmed_ray.errors import CheckpointError, ConfigurationError
from dsfedmed_ray.models.precision import Precision
from dsfedmed_ray.records import MaskOrigin

Adapter = Literal["full", "lora"]
Augmentation = Literal["none", "flip", "dihedral"]

SAMPLING = (
    "num_inference_steps",
    "images_per_job",
    "style_diversity",
    "grain",
    "residual_energy",
    "variation",
)
"""Settings that the server alone reads, when it draws; no client's tuning depends on them."""

PERTURBED_MASKS_PER_PAIR = 2


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """How a client tunes its ControlNet and how the server samples from it.

    Attributes:
        masks: what the server conditions on: the client's own masks (the paper), masks that the
            client deformed before they left, or masks that the server draws.
        masks_per_pair: masks sent for each private pair. Above 1 they must be ``perturbed``, since
            the same mask twice says nothing; null is 2 of perturbed masks and 1 of a client's own.
        perturbation: strength of the deformation; 1 is up to 15 degrees, 15 percent of scale and
            3 percent of the half side of elastic shift.
        adapter: what is tuned and uploaded: all of the ControlNet (the paper) or low-rank updates.
        lora_rank: rank of those updates.
        steps: optimiser steps of a client.
        batch_size: images a step.
        learning_rate: AdamW's peak, reached after a tenth of the steps, then lowered to a tenth.
        weight_decay: AdamW's.
        ema_decay: of the averaged weights, which are what is uploaded.
        min_snr_gamma: cap of the signal-to-noise weight (Hang et al. 2023); None weighs all times
            alike.
        foreground_weight: extra weight of latent positions that touch a structure; 0 is none.
        augmentation: geometric augmentation of the private pairs.
        colour_jitter: share of tuned samples whose colours are permuted, inverted and stretched,
            so that the ControlNet keeps following its style tokens.
        num_inference_steps: sampler steps.
        images_per_job: images sampled at once; part of what decides their bits.
        style_diversity: share of synthetic images in a style of another client or of shifted
            contrast and colour; 0 keeps to the client's styles.
        grain: strength of the noise that stands for detail the latents lose; 1 matches its energy.
        layout: whether clients also send what their images share in a common frame, which aligned
            scans need and slides do not use.
        residual_energy: most energy of a latent channel in a synthetic image, as a part of what it
            has in the client's images; below 1 draws calmer images than real ones. Needs the
            layout.
        variation: how far samples depart from the mean image of their condition, which is what
            the network expects of pure noise; 1 is the diffusion's own. Needs the layout.
        upload_dtype: number format of the uploaded parameters.
        precision: arithmetic; ``auto`` is bfloat16 where the device computes it natively.
    """

    has_painting: ClassVar[bool] = False
    """Whether images are flat paintings plus what diffusion adds: what the floor is measured of."""

    masks: MaskOrigin = "perturbed"
    masks_per_pair: int | None = None
    perturbation: float = 1.0
    adapter: Adapter = "full"
    lora_rank: int = 8
    steps: int = 80
    batch_size: int = 12
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    ema_decay: float = 0.98
    min_snr_gamma: float | None = None
    foreground_weight: float = 0.0
    augmentation: Augmentation = "flip"
    colour_jitter: float = 0.15
    num_inference_steps: int = 10
    images_per_job: int = 16
    style_diversity: float = 0.0
    grain: float = 1.0
    layout: bool = True
    residual_energy: float = 0.75
    variation: float = 1.0
    upload_dtype: Literal["float16", "float32"] = "float16"
    precision: Precision | Literal["fp16"] = "auto"

    def __post_init__(self) -> None:
        _among("masks", self.masks, ("client", "perturbed", "procedural"))
        _among("adapter", self.adapter, ("full", "lora"))
        _among("augmentation", self.augmentation, ("none", "flip", "dihedral"))
        _among("upload_dtype", self.upload_dtype, ("float16", "float32"))
        _among("precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        for name in ("lora_rank", "steps", "batch_size", "num_inference_steps", "images_per_job"):
            _at_least_one(name, getattr(self, name))
        if self.masks_per_pair is not None:
            _at_least_one("masks_per_pair", self.masks_per_pair)
            if self.masks_per_pair > 1 and self.masks != "perturbed":
                raise ConfigurationError(
                    f"generator.masks_per_pair={self.masks_per_pair} needs masks that differ, and "
                    f"generator.masks is {self.masks!r}; set generator.masks_per_pair=null or "
                    "generator.masks=perturbed"
                )
        for name in ("colour_jitter", "style_diversity"):
            _within(name, getattr(self, name), 0.0, 1.0)
        for name in (
            "perturbation",
            "weight_decay",
            "foreground_weight",
            "grain",
            "residual_energy",
            "variation",
        ):
            _within(name, getattr(self, name), 0.0, 100.0)
        _within("ema_decay", self.ema_decay, 0.0, 0.99999)
        _within("learning_rate", self.learning_rate, 1e-8, 1.0)
        if self.min_snr_gamma is not None:
            _within("min_snr_gamma", self.min_snr_gamma, 0.1, 100.0)

    @property
    def num_masks_per_pair(self) -> int:
        """Masks sent for each private pair, where masks are sent."""
        if self.masks_per_pair is not None:
            return self.masks_per_pair
        return PERTURBED_MASKS_PER_PAIR if self.masks == "perturbed" else 1

    def for_tuning(self) -> Self:
        """The same with the sampler's settings at their defaults: all that tuning depends on."""
        defaults: dict[str, Any] = {f.name: f.default for f in fields(self) if f.name in SAMPLING}
        return replace(self, **defaults)

    def check_structures(self, count: int) -> None:
        """Refuses masks that cannot be drawn for so many structures.

        Raises:
            ConfigurationError: areas and perimeters do not tell how several structures lie to
                each other.
        """
        if self.masks == "procedural" and count > 1:
            raise ConfigurationError(
                f"generator.masks=procedural draws one structure and the data have {count}; set "
                "generator.masks=perturbed, or data.structures=[NAME] where the data allow it"
            )

    def check(self) -> None:
        """Looks for the backbone's files without loading any; called before a run starts.

        Raises:
            CheckpointError: there is no such backbone.
        """


def check_parts(folder: Path, parts: Sequence[str], *, what: str, remedy: str) -> None:
    """Checks that a folder has a backbone's parts, each a folder with its configuration.

    Raises:
        CheckpointError: names the parts that are missing.
    """
    missing = [part for part in parts if not list((folder / part).glob("*.json"))]
    if missing:
        raise CheckpointError(f"{what} {folder} lacks {', '.join(missing)}; {remedy}")


def _among(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(
            f"generator.{name}={value!r} is unknown; choose one of {', '.join(allowed)}"
        )


def _at_least_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(
            f"generator.{name}={value!r} is not a count; give an integer of at least 1"
        )


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigurationError(
            f"generator.{name}={value!r} is out of range; give a number in [{low:g}, {high:g}]"
        )
