"""Segment-anything models as segmenters: image encoder, mask decoder, and where training starts.

Two decisions hold for every model of this family:

*   **No prompts** (METHOD: "prompts removed"). The decoder sees no point and no box; the learned
    dense "no mask" embedding of the prompt encoder is still added to the image embedding, as the
    stock decoder does when it is given nothing.
*   **One mask token a structure.** The released decoder has four mask tokens with a
    hypernetwork each: the first is trained for the single answer, the others for alternatives.
    Structure ``i`` takes token ``i``, so at most four structures are possible, and nothing has to
    be added to a released checkpoint.
"""

import hashlib
from typing import Any, Literal, Protocol, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.segmenter import FoundationSegmenter, State

NUM_MASK_TOKENS = 4
EMBEDDING_WIDTH = 256

Trainable = Literal["decoder", "neck", "last_stage", "all"]
"""What trains: the mask decoder; the encoder's neck too; its last stage too; or everything."""
Scaling = Literal["minmax", "imagenet"]
"""How images in [0, 1] are scaled: each to its full range, or by ImageNet's mean and deviation."""

IMAGENET_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
IMAGENET_DEVIATION = (58.395 / 255, 57.12 / 255, 57.375 / 255)


class StagedEncoder(Protocol):
    """An image encoder that can be stopped between stages; the last stage is its neck."""

    grid_size: int
    num_stages: int
    last_stage: int

    def run_stages(self, x: Tensor, first: int, last: int) -> Tensor:
        """Applies the stages ``first <= i < last``."""
        ...

    def stage_parameters(self, index: int) -> list[nn.Parameter]:
        """The parameters of one stage."""
        ...


class SamSegmenter(FoundationSegmenter):
    """An encoder, a prompt encoder that is never given a prompt, and a mask decoder.

    :meth:`embed` runs the frozen stages of the encoder, :meth:`decode` its trainable stages and
    the mask decoder. Parameters that neither trains stay without gradient. BatchNorms of frozen
    stages stay in evaluation mode, whatever :meth:`train` says.

    Args:
        image_encoder: a module that is a :class:`StagedEncoder`.
        prompt_encoder: segment-anything's ``PromptEncoder`` for the encoder's grid.
        mask_decoder: segment-anything's ``MaskDecoder``.
        num_structures: mask channels, at most four.
        image_size: side of the images and logits, pixels.
        input_size: side of what the encoder sees, pixels; images are resized to it.
        scaling: of the images.
        trainable: what trains.
        fixed_statistics: whether trainable BatchNorms keep their running statistics too; then
            only their scales and shifts train, which suits small batches on pretrained weights.
        logit_offset: what is added to every logit until :meth:`shift_logits` moves it.

    Raises:
        ConfigurationError: a value is not allowed.
    """

    logit_offset: Tensor

    def __init__(
        self,
        *,
        image_encoder: nn.Module,
        prompt_encoder: nn.Module,
        mask_decoder: nn.Module,
        num_structures: int,
        image_size: int,
        input_size: int,
        scaling: Scaling,
        trainable: Trainable,
        fixed_statistics: bool,
        logit_offset: float = 0.0,
    ) -> None:
        super().__init__()
        check_num_structures(num_structures)
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.num_structures = num_structures
        self.image_size = image_size
        self.input_size = input_size
        self.scaling = scaling
        self.fixed_statistics = fixed_statistics
        # No part of the released layouts, so not in the state_dict; it travels all the same.
        offset = torch.full((num_structures,), logit_offset)
        self.register_buffer("logit_offset", offset, persistent=False)
        self.first_trainable_stage = first_trainable_stage(self._encoder, trainable)
        self._kept_positions: tuple[tuple[int, int], Tensor] | None = None
        self._choose_trainable(everything=trainable == "all")

    @property
    def _encoder(self) -> StagedEncoder:
        encoder: StagedEncoder = self.image_encoder  # type: ignore[assignment]
        return encoder

    def _choose_trainable(self, *, everything: bool) -> None:
        self.requires_grad_(everything)
        self.mask_decoder.requires_grad_(True)
        for index in range(self.first_trainable_stage, self._encoder.num_stages):
            for parameter in self._encoder.stage_parameters(index):
                parameter.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> "SamSegmenter":
        """Sets the mode; BatchNorms whose statistics are fixed stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                frozen = self.fixed_statistics or not module.weight.requires_grad
                module.train(mode and not frozen)
        return self

    def embed(self, images: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch ..."]:
        """The encoder up to its first trainable stage, without gradients."""
        with torch.no_grad():
            return self._encoder.run_stages(self._scaled(images), 0, self.first_trainable_stage)

    def features(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch channels"]:
        """The encoder's output, mean over positions, without gradients."""
        encoder = self._encoder
        with torch.no_grad():
            seen = encoder.run_stages(self._scaled(images), 0, encoder.num_stages)
        return seen.float().mean(dim=(2, 3))

    def decode(
        self, embeddings: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch structures size size"]:
        """The rest of the encoder and the mask decoder, all images of the batch at once.

        Logits are float32, also under autocast: bfloat16 cannot be resized with a filter.
        """
        encoder = self._encoder
        embeddings = embeddings.to(next(self.mask_decoder.parameters()).dtype)
        embeddings = encoder.run_stages(embeddings, self.first_trainable_stage, encoder.num_stages)
        prompt_encoder: Any = self.prompt_encoder
        mask_decoder: Any = self.mask_decoder
        sparse, dense = prompt_encoder(points=None, boxes=None, masks=None)
        # One empty prompt: the decoder then repeats nothing, and the batch passes through it.
        logits, _ = mask_decoder.predict_masks(
            image_embeddings=embeddings,
            image_pe=self._positions(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        logits = resize(logits[:, : self.num_structures].float(), self.image_size)
        return logits + self.logit_offset[:, None, None]

    def _positions(self) -> Tensor:
        """The grid's position embedding, computed once for a set of weights and a device.

        In float32: under autocast SAM's own method would round phases of up to 2 pi * 3 to
        bfloat16's three digits.
        """
        prompt_encoder: Any = self.prompt_encoder
        frequencies = prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        source = (frequencies.data_ptr(), frequencies._version)
        if self._kept_positions is None or self._kept_positions[0] != source:
            with torch.no_grad(), torch.autocast(frequencies.device.type, enabled=False):
                self._kept_positions = source, prompt_encoder.get_dense_pe()
        return self._kept_positions[1]

    def shift_logits(self, shift: Float[Tensor, " structures"]) -> None:
        """See :class:`~dsfedmed_ray.models.segmenter.FoundationSegmenter`."""
        self.logit_offset += shift

    def trainable_state(self) -> State:
        """The trainable part and the offset of the logits."""
        return super().trainable_state() | {"logit_offset": self.logit_offset}

    def _scaled(self, images: Tensor) -> Tensor:
        images = resize(images, self.input_size)
        if self.scaling == "minmax":
            low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
            images = (images - low) / (high - low).clamp(min=1e-6)
        else:
            mean, deviation = (
                images.new_tensor(values).view(3, 1, 1)
                for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
            )
            images = (images - mean) / deviation
        return images.contiguous(memory_format=torch.channels_last)

    def frozen_fingerprint(self) -> str:
        """A hash of the frozen stages' weights and buffers, the input size and the scaling."""
        digest = hashlib.sha256(
            f"{self.input_size} {self.scaling} {self.first_trainable_stage}".encode()
        )
        trainable = self.trainable_state().keys()
        for name, value in self.image_encoder.state_dict(prefix="image_encoder.").items():
            if name not in trainable:
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
        return digest.hexdigest()


def first_trainable_stage(encoder: StagedEncoder, trainable: Trainable) -> int:
    """Where the frozen part of the encoder ends.

    Raises:
        ConfigurationError: ``trainable`` is not one of the allowed words.
    """
    if trainable not in get_args(Trainable):
        raise ConfigurationError(
            f"trainable is {trainable!r}; allowed: {', '.join(get_args(Trainable))}"
        )
    stages: dict[Trainable, int] = {
        "decoder": encoder.num_stages,
        "neck": encoder.num_stages - 1,
        "last_stage": encoder.last_stage,
        "all": 0,
    }
    return stages[trainable]


def check_num_structures(num_structures: int) -> None:
    """Checks that the decoder has a mask token for every structure.

    Raises:
        ConfigurationError: there are none, or more than four.
    """
    if not 1 <= num_structures <= NUM_MASK_TOKENS:
        raise ConfigurationError(
            f"{num_structures} structures, but SAM's decoder has {NUM_MASK_TOKENS} mask tokens, "
            f"one a structure; choose 1 to {NUM_MASK_TOKENS} structures or another model"
        )


def resize(
    maps: Float[Tensor, "batch c height width"], size: int
) -> Float[Tensor, "batch c size size"]:
    """Resizes bilinearly to a square, with a low-pass filter where it shrinks."""
    if maps.shape[-2:] == (size, size):
        return maps
    return functional.interpolate(
        maps, (size, size), mode="bilinear", align_corners=False, antialias=maps.shape[-1] > size
    )


def build_decoder(*, grid_size: int, input_size: int) -> tuple[nn.Module, nn.Module]:
    """Segment-anything's own prompt encoder and mask decoder, for a grid.

    Args:
        grid_size: side of the image embedding.
        input_size: side of the encoder's input, pixels.
    """
    from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer

    prompt_encoder = PromptEncoder(
        embed_dim=EMBEDDING_WIDTH,
        image_embedding_size=(grid_size, grid_size),
        input_image_size=(input_size, input_size),
        mask_in_chans=16,
    )
    mask_decoder = MaskDecoder(
        num_multimask_outputs=NUM_MASK_TOKENS - 1,
        transformer=TwoWayTransformer(
            depth=2, embedding_dim=EMBEDDING_WIDTH, mlp_dim=2048, num_heads=8
        ),
        transformer_dim=EMBEDDING_WIDTH,
    )
    return prompt_encoder, mask_decoder
