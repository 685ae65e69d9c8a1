"""The layout of the paper's release."""

from pathlib import Path

import numpy as np
import pytest

from dsfedmed_ray.data.npy_layout import NpyConfig
from dsfedmed_ray.data.splits import LeaveOneSiteOut
from dsfedmed_ray.errors import ConfigurationError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two clients: 64-pixel images, 16-pixel masks of two channels; 3 to train, 2 held out.

    Training and held-out pairs use the same names, as the release does.
    """
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.float32)
    mask = np.zeros((16, 16, 2), np.uint8)
    mask[4:12, 4:12, 0] = 1
    mask[6:8, 6:8, 1] = 1
    for client in ("client1", "client2"):
        for prefix, count in (("", 3), ("val_", 2)):
            for kind, pixels in (("data", image), ("label", mask)):
                folder = tmp_path / "fundus" / client / f"{prefix}{kind}_npy"
                folder.mkdir(parents=True)
                for number in range(count):
                    np.save(folder / f"sample{number}.npy", pixels)
    return tmp_path / "fundus"


def test_pairs_of_both_parts_with_enlarged_masks(root: Path) -> None:
    """8 x 8 of 16 pixels are 32 x 32 of 64; 2 x 2 are 8 x 8."""
    federation = NpyConfig(root=str(root), image_size=64, structures=["disc", "cup"]).build()

    assert federation.sites == ("client1", "client2")
    assert federation.num_pairs("client1") == 5
    sample = federation.load("client1", 3)
    assert sample.sample_id == "val_sample0"
    assert sample.image.shape == (64, 64, 3)
    assert sample.mask.sum(axis=(0, 1)).tolist() == [32 * 32, 8 * 8]


def test_the_split_keeps_to_the_layout(root: Path) -> None:
    federation = NpyConfig(root=str(root), structures=["disc", "cup"]).build()
    split = LeaveOneSiteOut(unseen_site="client2").apply(federation)

    assert split.indices("client1", "train") == (0, 1, 2)
    held_out = split.indices("client1", "validation"), split.indices("client1", "test")
    assert sorted(held_out) == [(3,), (4,)]
    assert split.indices("client2", "test") == (0, 1, 2, 3, 4)


def test_slices_of_one_volume_stay_on_one_side(root: Path) -> None:
    """Six held-out slices of two volumes: validation has one volume, test the other."""
    folder = root / "client1"
    for kind in ("data", "label"):
        pixels = np.load(folder / f"val_{kind}_npy" / "sample0.npy")
        for path in (folder / f"val_{kind}_npy").iterdir():
            path.unlink()
        for volume in ("a", "b"):
            for number in range(3):
                np.save(folder / f"val_{kind}_npy" / f"{volume}_slice{number}.npy", pixels)
    structures = ["disc", "cup"]
    config = NpyConfig(root=str(root), structures=structures, group_regex="_slice[0-9]+$")
    split = LeaveOneSiteOut(unseen_site="client2").apply(config.build())
    held_out = split.indices("client1", "validation"), split.indices("client1", "test")
    assert sorted(held_out) == [(3, 4, 5), (6, 7, 8)]
    with pytest.raises(ConfigurationError, match=r"data\.group_regex '\(' is no regular"):
        NpyConfig(root=str(root), group_regex="(")


def test_a_missing_folder_is_named(root: Path) -> None:
    (root / "client1/val_label_npy").rename(root / "client1/labels")

    with pytest.raises(DataError, match=r"site 'client1' has no folder val_label_npy/ in \S+;"):
        NpyConfig(root=str(root), structures=["disc", "cup"]).build()


def test_channels_without_names_are_refused(root: Path) -> None:
    with pytest.raises(DataError, match="expected height x width x 1, one channel for each of"):
        NpyConfig(root=str(root)).build()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"data.check_pairs 0 is below 1; use null"):
        NpyConfig(root="anywhere", check_pairs=0)
