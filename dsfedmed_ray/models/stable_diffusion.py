"""Stable Diffusion 1.5 (or any folder of its classes) as a generator's backbone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dsfedmed_ray.errors import CheckpointError, ConfigurationError
from dsfedmed_ray.models.generator import Generator
from dsfedmed_ray.models.generator_settings import GeneratorSettings, check_parts
from dsfedmed_ray.models.image_space import Condition
from dsfedmed_ray.models.layout import Layout
from dsfedmed_ray.models.painting import label_map
from dsfedmed_ray.models.precision import compute_dtype
from dsfedmed_ray.seeding import named_torch_stream


class AutoencoderSpace:
    """An ``AutoencoderKL``'s latents at a resolution of its own; styles are not used.

    Args:
        autoencoder: the frozen autoencoder.
        prompt: embedding of the empty prompt, ``[1, words, size]``.
        resolution: side at which the backbone works, pixels.
        device: where the networks are.
    """

    def __init__(self, autoencoder: Any, prompt: Tensor, resolution: int, device: str) -> None:
        self.autoencoder = autoencoder.to(device).eval().requires_grad_(False)
        self.prompt = prompt.to(device)
        self.resolution = resolution
        self.dtype = next(autoencoder.parameters()).dtype

    def style_size(self, num_structures: int) -> int:
        """None: colours are for the ControlNet to learn."""
        return 0

    def measure(
        self,
        images: Float[Tensor, "batch 3 height width"],
        masks: Float[Tensor, "batch structures height width"],
    ) -> Float[Tensor, "batch style"]:
        """No numbers."""
        return images.new_zeros(images.shape[0], 0)

    def condition(
        self,
        masks: Float[Tensor, "batch structures height width"],
        style: Float[Tensor, "batch style"],
        layout: Layout | None = None,
    ) -> Condition:
        """The mask as a picture, and the empty prompt."""
        picture = mask_picture(masks)
        picture = functional.interpolate(picture, (self.resolution, self.resolution))
        return Condition(control=picture, tokens=self.prompt.expand(masks.shape[0], -1, -1))

    def moved(
        self, style: Float[Tensor, "batch style"], moves: Float[Tensor, "batch 2 3"]
    ) -> Float[Tensor, "batch style"]:
        """The same: there is no style that a move could change."""
        return style

    def layout(
        self,
        images: Float[Tensor, "count 3 height width"],
        masks: Float[Tensor, "count structures height width"],
        grid: int,
    ) -> Layout | None:
        """None: what images share is for the ControlNet to learn."""
        return None

    @torch.no_grad()
    def encode(
        self, images: Float[Tensor, "batch 3 height width"], condition: Condition
    ) -> Float[Tensor, "batch latents rows columns"]:
        """The mode of the autoencoder's posterior, scaled to unit variance."""
        size = (self.resolution, self.resolution)
        large = functional.interpolate(images * 2 - 1, size, mode="bilinear", antialias=True)
        posterior = self.autoencoder.encode(large.to(self.dtype)).latent_dist
        return posterior.mode().float() * self.autoencoder.config.scaling_factor

    @torch.no_grad()
    def decode(
        self,
        latents: Float[Tensor, "batch latents rows columns"],
        condition: Condition,
        grain: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """Images at the size of ``grain``, which is otherwise unused."""
        scaled = (latents / self.autoencoder.config.scaling_factor).to(self.dtype)
        large = self.autoencoder.decode(scaled).sample.float()
        small = functional.interpolate(large, grain.shape[2:], mode="bilinear", antialias=True)
        return (small / 2 + 0.5).clamp(0, 1)


def mask_picture(
    masks: Float[Tensor, "batch structures height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Up to three structures as red, green and blue; one, or more than three, as grey levels."""
    count = masks.shape[1]
    if count in (2, 3):
        return functional.pad(masks, (0, 0, 0, 0, 0, 3 - count))
    return label_map(masks).expand(-1, 3, -1, -1)


PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
REMEDY = (
    f"set generator.path to a local folder with {', '.join(PARTS)} as safetensors, or to a hub id "
    "that this machine can reach"
)


@dataclass(frozen=True, kw_only=True)
class StableDiffusionConfig(GeneratorSettings):
    """Stable Diffusion 1.5 with the paper's ControlNet.

    Attributes:
        path: local folder or hub id with ``vae``, ``unet``, ``text_encoder``, ``tokenizer`` and
            ``scheduler``.
        controlnet_path: where clients start; None copies the U-Net, as ControlNet does.
        resolution: side at which the backbone works, pixels; a multiple of 64.
        gradient_checkpointing: recompute activations in the backward pass, which saves memory and
            costs about a third more time.
        vae_slicing: decode one image at a time.
        frozen_dtype: number format of the frozen weights; ``float16`` halves them. Where
            ``precision`` is float32 they are float32 too: networks cannot mix the two.
    """

    path: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    controlnet_path: str | None = None
    resolution: int = 512
    gradient_checkpointing: bool = True
    vae_slicing: bool = True
    frozen_dtype: Literal["float16", "bfloat16", "float32"] = "float16"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resolution < 64 or self.resolution % 64:
            raise ConfigurationError(
                f"generator.resolution={self.resolution} does not fit the backbone; "
                "give a multiple of 64, such as 512"
            )

    def check(self) -> None:
        """See :class:`~dsfedmed_ray.models.generator_settings.GeneratorSettings`.

        Of a hub id one small file is asked for, which is kept for the workers.
        """
        if Path(self.path).is_dir():
            check_parts(Path(self.path), PARTS, what="generator.path", remedy=REMEDY)
            return
        from huggingface_hub import hf_hub_download

        try:
            hf_hub_download(self.path, "unet/config.json")
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"generator.path {self.path} is no folder and cannot be fetched as a hub id "
                f"({type(error).__name__}); {REMEDY}"
            ) from error

    def build(self, *, device: str = "cpu") -> Generator:
        """Loads the backbone; nothing but safetensors is read.

        Raises:
            CheckpointError: a part is missing.
        """
        try:
            return self._build(device)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"cannot load Stable Diffusion from {self.path}: {str(error).splitlines()[0]}; "
                f"{REMEDY}"
            ) from error

    def _build(self, device: str) -> Generator:
        from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel

        computed = compute_dtype(self.precision, torch.device(device))
        dtype = torch.float32 if computed == torch.float32 else getattr(torch, self.frozen_dtype)
        options = {"torch_dtype": dtype, "use_safetensors": True}
        unet = UNet2DConditionModel.from_pretrained(self.path, subfolder="unet", **options)
        autoencoder = AutoencoderKL.from_pretrained(self.path, subfolder="vae", **options)
        if self.controlnet_path is None:
            with named_torch_stream("stable_diffusion_controlnet"):
                controlnet = ControlNetModel.from_unet(unet)
        else:
            controlnet = ControlNetModel.from_pretrained(self.controlnet_path, use_safetensors=True)
        if self.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
            controlnet.enable_gradient_checkpointing()
        if self.vae_slicing:
            autoencoder.enable_slicing()
        prompt = empty_prompt(self.path).to(computed)
        return Generator(
            settings=self,
            space=AutoencoderSpace(autoencoder, prompt, self.resolution, device),
            unet=unet,
            controlnet=controlnet.float(),
            scheduler=DDIMScheduler.from_pretrained(self.path, subfolder="scheduler"),
            device=device,
        )


@torch.no_grad()
def empty_prompt(path: str) -> Float[Tensor, "1 words size"]:
    """The text encoder's answer to "", after which the encoder is not needed any more."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(path, subfolder="tokenizer")
    encoder = CLIPTextModel.from_pretrained(path, subfolder="text_encoder", use_safetensors=True)
    words = tokenizer(
        "", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    return encoder(words.input_ids).last_hidden_state.float()
