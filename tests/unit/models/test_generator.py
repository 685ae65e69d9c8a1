"""The embedded generator: the shipped folder, its size, and its errors."""

from pathlib import Path

import pytest
import torch

from dsfedmed_ray.errors import CheckpointError
from dsfedmed_ray.models.generator import (
    EmbeddedGeneratorConfig,
    shipped_backbone,
    stratified_steps,
)
from dsfedmed_ray.models.precision import compute_dtype

MB = 2**20


def test_one_step_of_each_part() -> None:
    """Of 1000 steps, four parts of 250."""
    steps = stratified_steps(4, 1000, torch.Generator().manual_seed(0))
    assert (steps // 250).tolist() == [0, 1, 2, 3]


def test_no_step_beyond_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """11 and the largest float32 below 1 are 12 in float32: 1000 of 1000 steps, one too far."""
    largest = torch.tensor(1.0).nextafter(torch.tensor(0.0))
    monkeypatch.setattr(torch, "rand", lambda count, generator: largest.expand(count))
    steps = stratified_steps(12, 1000, torch.Generator())
    assert steps.max() == 999


def test_shipped_backbone_is_small_and_complete() -> None:
    weights = sorted(shipped_backbone().rglob("*.safetensors"))
    assert [path.parent.name for path in weights] == ["codec", "controlnet", "unet"]
    assert sum(path.stat().st_size for path in weights) <= 12 * MB
    assert (shipped_backbone() / "README.md").exists()


def test_shipped_backbone_draws_what_the_style_says() -> None:
    """Untuned, on a dark ground with a bright disc: inside is brighter than outside."""
    generator = EmbeddedGeneratorConfig(num_inference_steps=4, precision="fp32").build()
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    mask = (((rows - 32) ** 2 + (columns - 32) ** 2) < 16**2).float()[None, None]
    image = (0.1 + 0.6 * mask).expand(1, 3, 64, 64) + 0.03 * torch.randn(1, 3, 64, 64)
    style = generator.space.measure(image.clamp(0, 1), mask)
    drawn = generator.sample(mask, style, seeds=(7,))
    again = generator.sample(mask, style, seeds=(7,))
    assert torch.equal(drawn, again)
    inside = drawn[mask.expand_as(drawn) > 0].mean()
    outside = drawn[mask.expand_as(drawn) == 0].mean()
    assert inside - outside > 0.4


def test_only_the_controlnet_is_tuned() -> None:
    generator = EmbeddedGeneratorConfig().build()
    assert not any(weight.requires_grad for weight in generator.unet.parameters())
    assert all(weight.requires_grad for weight in generator.controlnet.parameters())


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot load the backbone in .*generator.folder"):
        EmbeddedGeneratorConfig(folder=str(tmp_path)).build()


def test_a_missing_part_is_found_before_anything_is_loaded(tmp_path: Path) -> None:
    EmbeddedGeneratorConfig().check()
    for part in ("codec", "unet", "controlnet"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").touch()
    (tmp_path / "scheduler").mkdir()
    with pytest.raises(CheckpointError, match=r"generator.folder .* lacks scheduler; set gen"):
        EmbeddedGeneratorConfig(folder=str(tmp_path)).check()


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert compute_dtype("fp32", cpu) == torch.float32
    assert compute_dtype("bf16", cpu) == torch.bfloat16
    assert compute_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
