"""SAM ViT-B, -L and -H through segment-anything's registry (Kirillov et al. 2023)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from torch import nn

from dsfedmed_ray.errors import CheckpointError, ConfigurationError
from dsfedmed_ray.models.sam_segmenter import (
    SamSegmenter,
    Trainable,
    build_decoder,
    check_num_structures,
)
from dsfedmed_ray.models.vit import PATCH_SIZE, StagedViT, toy_encoder
from dsfedmed_ray.models.weights import load_into, load_weights
from dsfedmed_ray.seeding import named_torch_stream

Architecture = Literal["vit_b", "vit_l", "vit_h", "vit_toy"]


class Release(NamedTuple):
    """An official checkpoint. The six digits in its name are of its MD5, not of its SHA-256."""

    file_name: str
    sha256: str


RELEASES: dict[str, Release] = {
    "vit_b": Release(
        "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
    ),
    "vit_l": Release(
        "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"
    ),
    "vit_h": Release(
        "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
    ),
}


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """A SAM model.

    Attributes:
        architecture: ``vit_b``, ``vit_l``, ``vit_h``, or ``vit_toy``, which is for tests and has no
            released weights.
        input_size: side of what the encoder sees, pixels, a multiple of 16; released for 1024.
        trainable: ``decoder`` (the authors' choice), ``neck``, ``last_stage`` (the blocks after
            the last but one with global attention) or ``all`` (FedSAM).
        weights: path of a checkpoint in the released layout, or ``random``.
        sha256: expected hash of the weights; ``official`` is the released file's, None accepts
            any, for weights fine-tuned elsewhere.
    """

    architecture: Architecture = "vit_b"
    input_size: int = 1024
    trainable: Trainable = "decoder"
    weights: str | None = None
    sha256: str | None = "official"

    def __post_init__(self) -> None:
        if self.architecture not in get_args(Architecture):
            raise ConfigurationError(
                f"foundation.architecture is {self.architecture!r}; "
                f"allowed: {', '.join(get_args(Architecture))}"
            )
        if self.input_size < PATCH_SIZE or self.input_size % PATCH_SIZE:
            raise ConfigurationError(
                f"input_size {self.input_size} does not fit SAM's ViT encoder; "
                f"use a multiple of {PATCH_SIZE} pixels"
            )

    def build(self, *, num_structures: int, image_size: int, seed: int) -> SamSegmenter:
        """Builds the model and loads its weights.

        Raises:
            CheckpointError: the weights are missing or do not fit.
            ConfigurationError: there are more structures than mask tokens.
        """
        check_num_structures(num_structures)
        release = RELEASES.get(self.architecture)
        if self.weights is None:
            path = f"the path of {release.file_name}, or " if release else ""
            raise CheckpointError(f"SAM {self.architecture} needs weights: give {path}random")
        model = self._untrained(num_structures, image_size, seed)
        if self.weights != "random":
            official = release.sha256 if release else None
            sha256 = official if self.sha256 == "official" else self.sha256
            state = load_weights(self.weights, sha256=sha256)
            load_into(model, state, what=f"SAM {self.architecture}")
        return model

    def _untrained(self, num_structures: int, image_size: int, seed: int) -> SamSegmenter:
        grid_size = self.input_size // PATCH_SIZE
        with named_torch_stream(seed, "initialise", "sam"):
            encoder = released_encoder(self.architecture)
            prompt_encoder, mask_decoder = build_decoder(
                grid_size=grid_size, input_size=self.input_size
            )
        return SamSegmenter(
            image_encoder=StagedViT(encoder, grid_size),
            prompt_encoder=prompt_encoder,
            mask_decoder=mask_decoder,
            num_structures=num_structures,
            image_size=image_size,
            input_size=self.input_size,
            scaling="imagenet",
            trainable=self.trainable,
            fixed_statistics=True,
        )


def released_encoder(architecture: Architecture) -> nn.Module:
    """The image encoder that segment-anything's registry builds, without weights."""
    if architecture == "vit_toy":
        return toy_encoder()
    from segment_anything import sam_model_registry

    encoder: nn.Module = sam_model_registry[architecture](checkpoint=None).image_encoder
    return encoder
