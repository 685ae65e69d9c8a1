"""SAM: sizes of the real models on the meta device, behaviour on a toy in their place."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dsfedmed_ray.errors import CheckpointError, ConfigurationError
from dsfedmed_ray.models.sam import Architecture, SamConfig
from dsfedmed_ray.models.weights import file_sha256

ToyBuilder = Callable[[], nn.Module]


@pytest.mark.parametrize(
    ("architecture", "num_parameters"),
    [("vit_b", 93_735_472), ("vit_l", 312_342_832), ("vit_h", 641_090_608)],
)
def test_sizes_of_the_literature(architecture: Architecture, num_parameters: int) -> None:
    """93.7 M, 312 M and 641 M, all of which travel in FedSAM."""
    config = SamConfig(architecture=architecture, weights="random", trainable="all")
    with torch.device("meta"):
        model = config.build(num_structures=1, image_size=1024, seed=0)
    assert sum(p.numel() for p in model.parameters()) == num_parameters
    assert sum(v.numel() for v in model.trainable_state().values()) == num_parameters


@pytest.mark.parametrize("input_size", [256, 512])
def test_released_weights_fit_any_input_size(
    toy_registry: ToyBuilder, tmp_path: Path, input_size: int
) -> None:
    released = toy_registry().state_dict()
    torch.save(released, tmp_path / "sam.pth")
    config = SamConfig(
        input_size=input_size,
        weights=str(tmp_path / "sam.pth"),
        sha256=file_sha256(tmp_path / "sam.pth"),
    )
    model = config.build(num_structures=2, image_size=64, seed=0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, released[name])
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 2, 64, 64)


@torch.no_grad()
def test_same_numbers_as_segment_anything(toy_registry: ToyBuilder) -> None:
    """Its own forward without prompts: three alternatives, to which our tokens 1 to 3 belong."""
    model = SamConfig(weights="random").build(num_structures=4, image_size=1024, seed=0).eval()
    sam = toy_registry().eval()
    sam.load_state_dict(model.state_dict())
    image = torch.rand(3, 1024, 1024)
    record = {"image": image * 255, "original_size": (1024, 1024)}
    expected = sam([record], multimask_output=True)[0]["low_res_logits"]
    small = torch.nn.functional.interpolate(
        expected, (1024, 1024), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(model(image[None])[:, 1:], small, atol=1e-4, rtol=1e-4)


def test_weights_are_asked_for() -> None:
    with pytest.raises(CheckpointError, match=r"path of sam_vit_l_0b3195\.pth .* or random"):
        SamConfig(architecture="vit_l").build(num_structures=1, image_size=64, seed=0)


def test_other_files_than_the_official_one(toy_registry: ToyBuilder, tmp_path: Path) -> None:
    torch.save(toy_registry().state_dict(), tmp_path / "sam.pth")
    config = SamConfig(weights=str(tmp_path / "sam.pth"))
    with pytest.raises(CheckpointError, match=r"expected ec2df6273261.* set sha256 to null"):
        config.build(num_structures=1, image_size=64, seed=0)


def test_weights_of_another_architecture(toy_registry: ToyBuilder, tmp_path: Path) -> None:
    state = toy_registry().state_dict()
    state["image_encoder.pos_embed"] = torch.zeros(1, 64, 64, 32)
    torch.save(state, tmp_path / "sam.pth")
    config = SamConfig(weights=str(tmp_path / "sam.pth"), sha256=None)
    with pytest.raises(CheckpointError, match=r"does not fit SAM vit_b: image_encoder\.pos_embed"):
        config.build(num_structures=1, image_size=64, seed=0)


def test_bad_values() -> None:
    with pytest.raises(ConfigurationError, match=r"sam\.architecture is 'vit_t'; allowed"):
        SamConfig(architecture="vit_t")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"input_size 1000 .* multiple of 16 pixels"):
        SamConfig(input_size=1000)
    with pytest.raises(ConfigurationError, match="6 structures"):
        SamConfig(weights="random").build(num_structures=6, image_size=64, seed=0)
