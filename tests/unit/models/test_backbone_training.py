"""Backbone training resumes to the same weights and never needs a client."""

from pathlib import Path

import pytest
import torch

from dsfedmed_ray.errors import CheckpointError
from dsfedmed_ray.models.backbone_training import BackboneRecipe, BackboneTraining

TOY = BackboneRecipe(
    image_size=32,
    pool_size=4,
    batch_size=2,
    codec_images=30,
    block_channels=(16, 16),
    bf16=False,
)


def run(training: BackboneTraining, steps: int) -> None:
    pool = TOY.pool(training.step)
    for _ in range(steps):
        training.run_step(pool, progress=0.0)


def test_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = BackboneTraining(TOY)
    run(whole, 3)
    first = BackboneTraining(TOY)
    run(first, 1)
    first.save(tmp_path)
    second = BackboneTraining(TOY)
    second.load(tmp_path)
    run(second, 2)
    for left, right in zip(whole.averaged, second.averaged, strict=True):
        assert torch.equal(left, right)


def test_export_is_half_precision(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    training = BackboneTraining(TOY)
    training.save(tmp_path)
    weights = load_file(tmp_path / "backbone/unet/diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}


def test_pool_is_a_function_of_the_step() -> None:
    walked = TOY.pool(0)
    for _ in range(3):
        walked.advance()
    direct = TOY.pool(3)
    for left, right in zip(walked.images, direct.images, strict=True):
        assert torch.equal(left, right)


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*start without --resume"):
        BackboneTraining(TOY).load(tmp_path)
