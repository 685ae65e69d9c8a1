"""The Stable Diffusion path at toy size: real classes, ``save_pretrained`` folders, same code."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from dsfedmed_ray.errors import CheckpointError, ConfigurationError
from dsfedmed_ray.learning.generator_training import tune_generator
from dsfedmed_ray.learning.image_generation import paint_job, plan_jobs, run_job
from dsfedmed_ray.models.procedural_images import draw_public_pair
from dsfedmed_ray.models.stable_diffusion import StableDiffusionConfig, mask_picture
from dsfedmed_ray.records import Sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Autoencoder, U-Net, text encoder, tokenizer and scheduler, each a few kilobytes."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    root = tmp_path_factory.mktemp("stable_diffusion")
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        latent_channels=4,
    ).save_pretrained(root / "vae")
    UNet2DConditionModel(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=4,
    ).save_pretrained(root / "unet")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=4,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=0,
            eos_token_id=1,
        )
    ).save_pretrained(root / "text_encoder")
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3}
    (root / "vocab.json").write_text(json.dumps(vocabulary))
    (root / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(root / "vocab.json"), str(root / "merges.txt"), model_max_length=77
    )
    tokenizer.save_pretrained(root / "tokenizer")
    DDIMScheduler(prediction_type="epsilon", beta_schedule="scaled_linear").save_pretrained(
        root / "scheduler"
    )
    return root


def config(folder: Path, **changes: object) -> StableDiffusionConfig:
    settings: dict[str, object] = {
        "path": str(folder),
        "resolution": 64,
        "steps": 2,
        "batch_size": 2,
        "num_inference_steps": 2,
        "precision": "fp32",
        "frozen_dtype": "float32",
        "masks": "client",
    }
    return StableDiffusionConfig(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pairs() -> Sequence[Sample]:
    drawn = [draw_public_pair(seed, size=32) for seed in range(3)]
    return [Sample(sample_id=str(i), image=a, mask=m) for i, (a, m) in enumerate(drawn)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"adapter": "lora", "lora_rank": 2},
        {"precision": "bf16", "frozen_dtype": "bfloat16", "min_snr_gamma": 5.0},
        {"precision": "fp32", "frozen_dtype": "float16"},
    ],
    ids=["full", "lora", "bf16", "fp32 from float16"],
)
def test_tune_and_generate(
    folder: Path, pairs: Sequence[Sample], changes: dict[str, object]
) -> None:
    settings = config(folder, **changes)
    generator = settings.build()
    upload = tune_generator(generator, pairs, seed=0)
    assert upload.style.shape == (3, 0)
    assert np.isfinite(upload.final_loss)
    (job,) = plan_jobs(settings, upload, client="a", num_samples=2, seed=0)
    first, again = run_job(generator, upload, job), run_job(generator, upload, job)
    assert first[0].image.shape == (32, 32, 3)
    assert np.array_equal(first[1].image, again[1].image)
    with pytest.raises(ConfigurationError, match="painting floor needs the embedded generator"):
        paint_job(generator, job)


def test_procedural_masks_without_styles(folder: Path, pairs: Sequence[Sample]) -> None:
    settings = config(folder, masks="procedural")
    upload = tune_generator(settings.build(), pairs, seed=0)
    assert upload.masks.shape == (0, 32, 32, 1)
    (job,) = plan_jobs(settings, upload, client="a", num_samples=2, seed=0)
    assert job.masks.any()


def test_checkpointing_and_dtype_are_wired(folder: Path) -> None:
    generator = config(folder, frozen_dtype="float16", precision="fp16").build()
    assert generator.unet.is_gradient_checkpointing
    assert generator.controlnet.is_gradient_checkpointing
    assert next(generator.unet.parameters()).dtype == torch.float16
    assert next(generator.controlnet.parameters()).dtype == torch.float32
    plain = config(folder, gradient_checkpointing=False).build()
    assert not plain.unet.is_gradient_checkpointing


def test_structures_as_colours() -> None:
    """Two structures are red and green; four are grey levels of their own."""
    two = mask_picture(torch.ones(1, 2, 2, 2))
    assert two[0, :, 0, 0].tolist() == [1.0, 1.0, 0.0]
    four = torch.zeros(1, 4, 1, 1)
    four[0, 1] = 1
    assert mask_picture(four)[0, :, 0, 0].tolist() == [0.5] * 3


def test_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="resolution=100 does not fit the backbone"):
        StableDiffusionConfig(resolution=100)
    with pytest.raises(
        CheckpointError, match=r"cannot load Stable Diffusion from .*generator.path"
    ):
        config(tmp_path).build()


def test_a_missing_backbone_is_found_before_anything_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder by its parts; what is no folder by one small file, here without a network."""
    config(folder).check()
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").touch()
    with pytest.raises(CheckpointError, match=r"generator.path .* lacks vae, text_encoder, tok"):
        config(tmp_path).check()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"generator.path some/name is no folder and cannot"):
        config(Path("some/name")).check()
