"""The architecture of the shipped backbone, in diffusers' own classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from dsfedmed_ray.models.image_space import CLASS_SIZE, NUM_MAPS, TOKEN_SIZE
from dsfedmed_ray.models.latent_codec import LinearCodec
from dsfedmed_ray.seeding import named_torch_stream

BLOCK_CHANNELS = (64, 128)
LATENT_CHANNELS = 48
PATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class TinyDiffusion:
    """The parts of the backbone folder."""

    codec: LinearCodec
    unet: UNet2DConditionModel
    controlnet: ControlNetModel
    scheduler: DDIMScheduler

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Writes the folder that :func:`load_tiny_diffusion` reads."""
        parts = {"codec": self.codec, "unet": self.unet, "controlnet": self.controlnet}
        for name, part in parts.items():
            nn.Module.to(part, dtype).save_pretrained(folder / name)
        self.scheduler.save_pretrained(folder / "scheduler")


def load_tiny_diffusion(folder: Path) -> TinyDiffusion:
    """Reads a backbone folder, in float32."""
    options = {"torch_dtype": torch.float32, "use_safetensors": True}
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **options)
    controlnet = ControlNetModel.from_pretrained(folder, subfolder="controlnet", **options)
    use_plain_attention(unet)
    use_plain_attention(controlnet)
    return TinyDiffusion(
        codec=LinearCodec.from_pretrained(folder, subfolder="codec", **options),
        unet=unet,
        controlnet=controlnet,
        scheduler=DDIMScheduler.from_pretrained(folder, subfolder="scheduler"),
    )


def new_tiny_diffusion(
    seed: int, block_channels: tuple[int, int] = BLOCK_CHANNELS, norm_groups: int = 8
) -> TinyDiffusion:
    """An untrained backbone.

    The ControlNet's zero convolutions start small instead of zero, since here both networks learn
    together from the first step.
    """
    latents = LATENT_CHANNELS
    shared: dict[str, Any] = {
        "in_channels": latents,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "block_out_channels": block_channels,
        "layers_per_block": 1,
        "cross_attention_dim": TOKEN_SIZE,
        "attention_head_dim": 4,
        "norm_num_groups": norm_groups,
        "resnet_time_scale_shift": "scale_shift",
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": CLASS_SIZE,
    }
    with named_torch_stream(seed, "tiny_diffusion"):
        unet = UNet2DConditionModel(
            out_channels=latents,
            up_block_types=("UpBlock2D", "UpBlock2D"),
            sample_size=16,
            **shared,
        )
        controlnet = ControlNetModel(
            conditioning_channels=latents + PATCH_SIZE**2 + NUM_MAPS,
            conditioning_embedding_out_channels=(block_channels[0],),
            **shared,
        )
        _wake_zero_convolutions(controlnet)
    use_plain_attention(unet)
    use_plain_attention(controlnet)
    return TinyDiffusion(
        codec=LinearCodec(patch_size=PATCH_SIZE, latent_channels=latents),
        unet=unet,
        controlnet=controlnet,
        scheduler=_scheduler(),
    )


def use_plain_attention(network: nn.Module) -> None:
    """At head sizes this small the fused kernel's backward pass costs a fifth of a step."""
    network.set_attn_processor(AttnProcessor())  # type: ignore[operator]


def _wake_zero_convolutions(controlnet: ControlNetModel) -> None:
    branches = [*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]
    for layer in [*branches, controlnet.controlnet_cond_embedding.conv_out]:
        nn.init.normal_(layer.weight, std=0.3 / layer.weight[0].numel() ** 0.5)


def _scheduler() -> DDIMScheduler:
    """Velocity prediction with a last step of pure noise (Lin et al. 2024, arXiv 2305.08891)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
