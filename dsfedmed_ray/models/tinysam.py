"""TinySAM and MobileSAM: TinyViT-5M with SAM's mask decoder, 10.1 M parameters.

One architecture, two trainings (Shu et al. 2023, arXiv 2312.13789; Zhang et al. 2023, arXiv
2306.14289). Both checkpoints also hold an ImageNet head that no segmentation uses.
"""

from dataclasses import dataclass

from dsfedmed_ray.errors import CheckpointError
from dsfedmed_ray.models.sam_segmenter import (
    SamSegmenter,
    Trainable,
    build_decoder,
    check_num_structures,
)
from dsfedmed_ray.models.tinyvit import TinyViT
from dsfedmed_ray.models.weights import load_into, load_weights
from dsfedmed_ray.seeding import named_torch_stream

PATCH_STRIDE = 4
IMAGENET_HEAD = frozenset(
    f"image_encoder.{layer}.{kind}"
    for layer in ("norm_head", "head")
    for kind in ("weight", "bias")
)


@dataclass(frozen=True, kw_only=True)
class TinySamConfig:
    """TinySAM, as the lightweight model (everything trains and travels) or as a foundation model.

    Attributes:
        input_size: side of what the encoder sees, pixels, a multiple of 16; released for 1024.
        trainable: ``all`` for federated training; ``decoder``, ``neck`` or ``last_stage`` too.
        weights: path of ``tinysam.pth`` or ``mobile_sam.pt``, or ``random``.
        sha256: expected hash of the weights; None accepts any.
        imagenet_head: keep the unused head, as in the released layout: 6 % of what travels.
        fixed_statistics: whether BatchNorms keep their running statistics while they train.
    """

    input_size: int = 1024
    trainable: Trainable = "all"
    weights: str | None = None
    sha256: str | None = None
    imagenet_head: bool = False
    fixed_statistics: bool = False

    def build(self, *, num_structures: int, image_size: int, seed: int) -> SamSegmenter:
        """Builds the model and loads its weights.

        Raises:
            CheckpointError: the weights are missing or do not fit.
            ConfigurationError: the input size or the number of structures is not possible.
        """
        check_num_structures(num_structures)
        if self.weights is None:
            raise CheckpointError(
                "TinySAM needs weights: give the path of tinysam.pth or mobile_sam.pt, or random"
            )
        with named_torch_stream(seed, "initialise", "tinysam"):
            encoder = TinyViT(
                input_size=self.input_size,
                patch_stride=PATCH_STRIDE,
                imagenet_head=self.imagenet_head,
            )
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
            scaling="imagenet",
            trainable=self.trainable,
            fixed_statistics=self.fixed_statistics,
        )
        if self.weights != "random":
            state = load_weights(self.weights, sha256=self.sha256)
            load_into(model, state, what="TinySAM", ignore=IMAGENET_HEAD)
        return model
