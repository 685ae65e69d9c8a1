"""Writes a folder of Stable Diffusion 1.5's classes and sizes with random weights.

What it computes means nothing; what it takes in time and memory is what the real one takes.
"""

import json
from pathlib import Path

import torch

SIZES = {
    "full": {"vae": (128, 256, 512, 512), "unet": (320, 640, 1280, 1280), "text": (768, 12, 49408)},
    "toy": {"vae": (8, 8, 8, 8), "unet": (8, 8, 16, 16), "text": (16, 2, 4)},
}


def write_stable_diffusion(root: Path, size: str, device: str) -> None:
    """The five parts that ``generator=sd15`` reads, saved by ``save_pretrained`` as float16."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    widths, heads, groups = SIZES[size], *((8, 32) if size == "full" else (2, 4))
    hidden, layers, vocabulary = widths["text"]
    with torch.device(device):
        autoencoder = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=widths["vae"],
            layers_per_block=2,
            latent_channels=4,
            norm_num_groups=groups,
        )
        unet = UNet2DConditionModel(
            block_out_channels=widths["unet"],
            cross_attention_dim=hidden,
            attention_head_dim=heads,
            norm_num_groups=groups,
        )
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=layers,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    autoencoder.half().save_pretrained(root / "vae")
    unet.half().save_pretrained(root / "unet")
    encoder.save_pretrained(root / "text_encoder")
    DDIMScheduler(prediction_type="epsilon", beta_schedule="scaled_linear").save_pretrained(
        root / "scheduler"
    )
    _write_tokenizer(root)


def _write_tokenizer(root: Path) -> None:
    """Four words are enough: only the empty prompt is asked for."""
    from transformers import CLIPTokenizer

    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3}
    (root / "vocab.json").write_text(json.dumps(words))
    (root / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(root / "vocab.json"), str(root / "merges.txt"), model_max_length=77
    )
    tokenizer.save_pretrained(root / "tokenizer")
