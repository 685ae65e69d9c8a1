"""SAM: sizes of the real models on the meta device, behaviour at toy size."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dsfedmed_ray.errors import CheckpointError, ConfigurationError
from dsfedmed_ray.models.sam import Architecture, SamConfig
from dsfedmed_ray.models.sam_segmenter import SamSegmenter
from dsfedmed_ray.models.weights import file_sha256


def build(num_structures: int = 1, image_size: int = 64, **options: Any) -> SamSegmenter:
    config = SamConfig(**{"architecture": "vit_toy", "weights": "random", **options})
    return config.build(num_structures=num_structures, image_size=image_size, seed=0).eval()


@pytest.mark.parametrize(
    ("architecture", "num_parameters"),
    [("vit_b", 93_735_472), ("vit_l", 312_342_832), ("vit_h", 641_090_608)],
)
def test_sizes_of_the_literature(architecture: Architecture, num_parameters: int) -> None:
    """93.7 M, 312 M and 641 M; in FedSAM all travel, with one offset of the logits."""
    with torch.device("meta"):
        model = build(architecture=architecture, trainable="all")
    assert sum(p.numel() for p in model.parameters()) == num_parameters
    assert sum(v.numel() for v in model.trainable_state().values()) == num_parameters + 1


@pytest.mark.parametrize("input_size", [256, 512])
def test_released_weights_fit_any_input_size(
    released_sam: Any, tmp_path: Path, input_size: int
) -> None:
    path = tmp_path / "sam.pth"
    torch.save(released_sam.state_dict(), path)
    model = build(2, input_size=input_size, weights=str(path), sha256=file_sha256(path))
    released = released_sam.state_dict()
    assert model.state_dict().keys() == released.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, released[name])
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 2, 64, 64)


@torch.no_grad()
def test_same_numbers_as_segment_anything(released_sam: Any) -> None:
    """Its own forward without prompts: three alternatives, which are our structures 1 to 3."""
    model = build(4, image_size=1024)
    model.load_state_dict(released_sam.state_dict())
    image = torch.rand(3, 1024, 1024)
    record = {"image": image * 255, "original_size": (1024, 1024)}
    expected = released_sam([record], multimask_output=True)[0]["low_res_logits"]
    expected = torch.nn.functional.interpolate(expected, (1024, 1024), mode="bilinear")
    torch.testing.assert_close(model(image[None])[:, 1:], expected, atol=1e-4, rtol=1e-4)


def test_weights_are_asked_for() -> None:
    with pytest.raises(CheckpointError, match=r"path of sam_vit_l_0b3195\.pth, or random"):
        build(architecture="vit_l", weights=None)
    with pytest.raises(CheckpointError, match=r"SAM vit_toy needs weights: give random"):
        build(weights=None)


def test_other_files_than_the_official_one(released_sam: Any, tmp_path: Path) -> None:
    torch.save(released_sam.state_dict(), tmp_path / "sam.pth")
    with (
        torch.device("meta"),
        pytest.raises(CheckpointError, match=r"expected ec2df6273261.* set sha256 to null"),
    ):
        build(architecture="vit_b", weights=str(tmp_path / "sam.pth"))


def test_weights_of_another_architecture(released_sam: Any, tmp_path: Path) -> None:
    state = released_sam.state_dict()
    state["image_encoder.pos_embed"] = torch.zeros(1, 64, 64, 32)
    torch.save(state, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r"not fit SAM vit_toy: image_encoder\.pos_embed"):
        build(weights=str(tmp_path / "sam.pth"), sha256=None)


def test_bad_values() -> None:
    with pytest.raises(ConfigurationError, match=r"architecture is 'vit_t'; allowed: vit_b"):
        build(architecture="vit_t")
    with pytest.raises(ConfigurationError, match=r"input_size 1000 .* multiple of 16 pixels"):
        build(input_size=1000)
    with pytest.raises(ConfigurationError, match="6 structures"):
        build(6)
