"""Tuning a ControlNet: what it changes, what it sends, and that it repeats."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from dsfedmed_ray.errors import CheckpointError, ConfigurationError
from dsfedmed_ray.learning.generator_training import (
    target_of,
    time_weight,
    tune_generator,
)
from dsfedmed_ray.learning.generator_upload import GeneratorUpload
from dsfedmed_ray.models.generator import EmbeddedGeneratorConfig
from dsfedmed_ray.models.generator_settings import SAMPLING
from dsfedmed_ray.records import Sample

Make = Callable[..., EmbeddedGeneratorConfig]


def test_same_seed_same_upload(toy_config: Make, pairs: Sequence[Sample]) -> None:
    generator = toy_config().build()
    first = tune_generator(generator, pairs, seed=1)
    again = tune_generator(generator, pairs, seed=1)
    other = tune_generator(generator, pairs, seed=2)
    for name, value in first.arrays().items():
        assert np.array_equal(value, again.arrays()[name]), name
    assert any(
        not np.array_equal(value, other.controlnet[name])
        for name, value in first.controlnet.items()
    )


def test_settings_of_the_sampler_leave_the_upload_as_it_is(
    toy_config: Make, pairs: Sequence[Sample]
) -> None:
    """Stage 1 is kept without them in its key: every one of them is moved here."""
    moved = {
        "num_inference_steps": 7,
        "images_per_job": 5,
        "style_diversity": 0.5,
        "grain": 0.3,
        "residual_energy": 0.2,
        "variation": 0.4,
    }
    assert set(moved) == set(SAMPLING)
    first = tune_generator(toy_config().build(), pairs, seed=1)
    other = tune_generator(toy_config(**moved).build(), pairs, seed=1)
    assert first.arrays().keys() == other.arrays().keys()
    for name, value in first.arrays().items():
        assert np.array_equal(value, other.arrays()[name]), name


def test_backbone_stays_and_controlnet_moves(toy_config: Make, pairs: Sequence[Sample]) -> None:
    generator = toy_config().build()
    before = {name: value.clone() for name, value in generator.unet.state_dict().items()}
    start = {name: value.clone() for name, value in generator.controlnet_state().items()}
    seen: list[tuple[int, int]] = []
    tune_generator(
        generator, pairs, seed=0, progress=lambda step, steps, _: seen.append((step, steps))
    )
    assert all(
        torch.equal(value, before[name]) for name, value in generator.unet.state_dict().items()
    )
    assert any(
        not torch.equal(value, start[name]) for name, value in generator.controlnet_state().items()
    )
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(("masks", "count"), [("client", 5), ("perturbed", 10), ("procedural", 0)])
def test_masks_that_leave(
    toy_config: Make, pairs: Sequence[Sample], masks: str, count: int
) -> None:
    upload = tune_generator(toy_config(masks=masks).build(), pairs, seed=0)
    own = np.stack([sample.mask for sample in pairs])
    assert upload.masks.shape == (count, 32, 32, 1)
    assert np.array_equal(upload.masks, own) == (masks == "client")
    assert upload.style.shape == (max(5, count), 4 * 12 + 6)  # 4 tokens, and the pose
    assert set(upload.parts()) == {"controlnet", "style", "layout"} | (
        {"masks"} if count else set()
    )


def test_few_pairs_share_no_layout(toy_config: Make, pairs: Sequence[Sample]) -> None:
    """A mean over three images would show them."""
    upload = tune_generator(toy_config().build(), pairs[:3], seed=0)
    assert upload.layout == {}
    assert "layout" not in upload.parts()


def test_low_rank_upload_is_smaller(toy_config: Make, pairs: Sequence[Sample]) -> None:
    sizes = {}
    for adapter in ("full", "lora"):
        generator = toy_config(adapter=adapter, lora_rank=2).build()
        upload = tune_generator(generator, pairs, seed=0)
        sizes[adapter] = sum(value.nbytes for value in upload.controlnet.values())
    assert sizes["lora"] < 0.6 * sizes["full"]


def test_upload_file(toy_config: Make, pairs: Sequence[Sample], tmp_path: Path) -> None:
    upload = tune_generator(toy_config(masks="procedural").build(), pairs, seed=0)
    path = tmp_path / "a.safetensors"
    upload.save(path)
    read = GeneratorUpload.load(path)
    assert read.final_loss == pytest.approx(upload.final_loss)
    assert read.masks.shape == upload.masks.shape
    assert all(np.array_equal(v, read.controlnet[k]) for k, v in upload.controlnet.items())
    assert all(np.array_equal(v, read.layout[k]) for k, v in upload.layout.items())
    assert set(read.layout) == {"mean", "factor", "spectrum"}
    with pytest.raises(CheckpointError, match=r"upload lacks \['final_loss', 'style'\]"):
        GeneratorUpload.from_arrays({"masks": upload.masks})
    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot read the generator upload"):
        GeneratorUpload.load(path)


def test_no_pairs(toy_config: Make) -> None:
    with pytest.raises(ConfigurationError, match="without pairs cannot tune a generator"):
        tune_generator(toy_config().build(), [], seed=0)


def test_several_structures_cannot_be_drawn_by_area(
    toy_config: Make, pairs: Sequence[Sample]
) -> None:
    both = [replace(pair, mask=pair.mask.repeat(2, axis=2)) for pair in pairs]
    with pytest.raises(
        ConfigurationError,
        match=r"masks=procedural draws one structure and the data have 2; set",
    ):
        tune_generator(toy_config(masks="procedural").build(), both, seed=0)


def test_min_snr_weight_of_velocity() -> None:
    """With a = 0.8 the ratio is 4: capped at 2 the weight is 2 / (4 + 1); uncapped 4 / 5."""
    scheduler = DDIMScheduler(prediction_type="v_prediction")
    scheduler.alphas_cumprod = torch.tensor([0.8])
    steps = torch.tensor([0])
    assert time_weight(scheduler, steps, 2.0).item() == pytest.approx(0.4)
    assert time_weight(scheduler, steps, 9.0).item() == pytest.approx(0.8)
    assert time_weight(scheduler, steps, None).item() == 1.0


def test_targets() -> None:
    latents, noise, steps = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0), torch.tensor([0])
    scheduler = DDIMScheduler(prediction_type="epsilon")
    assert torch.equal(target_of(scheduler, latents, noise, steps), noise)
    wrong = DDIMScheduler(prediction_type="sample")
    with pytest.raises(ConfigurationError, match="prediction_type 'sample'"):
        target_of(wrong, latents, noise, steps)
