"""Reading and checking weight files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dsfedmed_ray.errors import CheckpointError
from dsfedmed_ray.models.tinysam import TinySamConfig
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.models.weights import file_sha256, load_into, load_weights, with_known_weights


def state() -> dict[str, torch.Tensor]:
    return {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_states_of_torch_files(tmp_path: Path, wrapper: str | None) -> None:
    path = tmp_path / "w.pth"
    torch.save(state() if wrapper is None else {wrapper: state(), "epoch": 3}, path)
    assert load_weights(path, sha256=file_sha256(path)).keys() == {"weight", "bias"}


def test_safetensors(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    assert torch.equal(
        load_weights(tmp_path / "w.safetensors", sha256=None)["weight"], torch.ones(2, 3)
    )


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no weights at '.*none\.pth'; download"):
        load_weights(tmp_path / "none.pth", sha256=None)


def test_other_hash(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"expected abababababab\.\.\.; download them again"):
        load_weights(tmp_path / "w.pth", sha256="ab" * 32)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("length", [0, 40, 400])
def test_damaged_file(tmp_path: Path, suffix: str, length: int) -> None:
    torch.save(state(), tmp_path / "whole.pth")
    save_file({"weight": torch.ones(200)}, tmp_path / "whole.safetensors")
    path = tmp_path / f"w.{suffix}"
    path.write_bytes((tmp_path / f"whole.{suffix}").read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"cannot read weights 'w\..* give an undamaged"):
        load_weights(path, sha256=None)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"model": nn.Linear(1, 1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="cannot read weights"):
        load_weights(tmp_path / "w.pth", sha256=None)


@pytest.mark.parametrize(
    ("content", "message"), [([1, 2], "hold no state"), ({"epoch": 3}, "that are no tensors")]
)
def test_files_without_a_state(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path / "w.pth", sha256=None)


def test_a_state_fits_wholly_or_is_not_loaded() -> None:
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    with pytest.raises(CheckpointError, match=r"does not fit toy: 1 missing keys \['bias'\]"):
        load_into(module, {"weight": torch.ones(2, 3)}, what="toy")
    with pytest.raises(CheckpointError, match=r"1 unknown keys \['head'\]"):
        load_into(module, {**state(), "head": torch.ones(1)}, what="toy")
    with pytest.raises(CheckpointError, match=r"weight has shape \(3, 3\), expected \(2, 3\)"):
        load_into(module, {**state(), "weight": torch.ones(3, 3)}, what="toy")
    assert torch.equal(module.weight, before)
    load_into(module, {**state(), "head": torch.ones(1)}, what="toy", ignore={"head"})
    assert torch.equal(module.weight, torch.ones(2, 3))


def test_shapes_alone_are_checked_on_the_meta_device(tmp_path: Path) -> None:
    """A layer from 3 to 2 takes the file's layout and none of its values; one from 4 does not."""
    torch.save(state(), tmp_path / "w.pth")
    with torch.device("meta"):
        given = load_weights(tmp_path / "w.pth", sha256=None)
        fitting = nn.Linear(3, 2)
        load_into(fitting, given, what="a layer")
        with pytest.raises(CheckpointError, match=r"weight has shape \(2, 3\), expected \(2, 4\)"):
            load_into(nn.Linear(4, 2), given, what="a layer")
    assert all(value.is_meta for value in (*given.values(), *fitting.parameters()))


def test_weights_of_a_file_are_known_by_their_content(tmp_path: Path) -> None:
    """So that another file at the same path gives another key of a finished stage."""
    path = tmp_path / "tinysam.pth"
    configs = []
    for value in (1.0, 2.0):
        torch.save({"weight": torch.full((2,), value)}, path)
        configs.append(with_known_weights(TinySamConfig(weights=str(path))))
    assert configs[0] != configs[1]
    assert configs[1].sha256 == file_sha256(path)


def test_other_configurations_stay_as_they_are() -> None:
    for config in (UNetConfig(), TinySamConfig(weights="random")):
        assert with_known_weights(config) == config
