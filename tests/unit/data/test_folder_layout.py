"""The plain layout, and every way in which a folder can be wrong."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsfedmed_ray.data.folder_layout import FolderConfig
from dsfedmed_ray.data.splits import LeaveOneSiteOut
from dsfedmed_ray.errors import ConfigurationError, DataError

SIZE = 32


def _write_pair(site: Path, name: str, *, colour: bool = False, value: int = 255) -> None:
    """A bright square of 16 pixels in the upper left corner, with its mask."""
    image = np.full((SIZE, SIZE, 3) if colour else (SIZE, SIZE), 20, np.uint8)
    image[:16, :16] = 200
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:16, :16] = value
    for folder, pixels in (("images", image), ("masks", mask)):
        (site / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(site / folder / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Sites ``grey`` (masks of 255) and ``stain`` (colour, masks of 1), four pairs each."""
    folder = tmp_path / "nuclei"
    for number in range(4):
        _write_pair(folder / "grey", f"p{number // 2}_{number % 2}")
        _write_pair(folder / "stain", f"q{number}", colour=True, value=1)
    (folder / "README.md").write_text("files and hidden folders beside the sites are no sites\n")
    (folder / ".cache").mkdir()
    return folder


def test_sites_pairs_and_samples(root: Path) -> None:
    federation = FolderConfig(root=str(root), image_size=SIZE).build()

    assert federation.name == "nuclei"
    assert federation.sites == ("grey", "stain")
    assert federation.structures == ("foreground",)
    assert federation.num_pairs("stain") == 4
    for site in federation.sites:
        sample = federation.load(site, 1)
        assert sample.image.shape == (SIZE, SIZE, 3)
        assert sample.mask.sum() == sample.mask[:16, :16].sum() == 256
        assert sample.image[:16, :16].min() == 255
        assert sample.image[16:].max() == 0
    assert federation.load("grey", 1).sample_id == "p0_1"


def test_formats_may_differ_within_a_pair(root: Path) -> None:
    mask = root / "grey/masks/p0_0.png"
    np.save(mask.with_suffix(".npy"), np.asarray(Image.open(mask))[::2, ::2, None])
    mask.unlink()

    sample = FolderConfig(root=str(root), image_size=SIZE).build().load("grey", 0)

    assert sample.mask.sum() == 256


def test_tiles_of_one_parent_are_one_group(root: Path) -> None:
    config = FolderConfig(root=str(root), image_size=SIZE, group_regex="_[0-3]$")
    federation = config.build()

    assert [federation.group("grey", index) for index in range(4)] == ["p0", "p0", "p1", "p1"]
    split = LeaveOneSiteOut(unseen_site="stain", validation_fraction=0).apply(federation)
    assert {split.indices("grey", "train"), split.indices("grey", "test")} == {(0, 1), (2, 3)}


def test_without_a_regex_each_image_is_its_own_group(root: Path) -> None:
    federation = FolderConfig(root=str(root)).build()

    assert len({federation.group("grey", index) for index in range(4)}) == 4


def test_the_federation_travels(root: Path) -> None:
    federation = FolderConfig(root=str(root), image_size=SIZE).build()

    copy = pickle.loads(pickle.dumps(federation))

    np.testing.assert_array_equal(copy.load("stain", 2).image, federation.load("stain", 2).image)
    assert copy.fingerprint() == federation.fingerprint()


def test_the_fingerprint_follows_content_not_place(root: Path, tmp_path: Path) -> None:
    before = FolderConfig(root=str(root)).build().fingerprint()
    moved = shutil.copytree(root, tmp_path / "elsewhere" / "copy")

    assert FolderConfig(root=str(moved)).build().fingerprint() == before
    assert FolderConfig(root=str(moved), image_size=64).build().fingerprint() != before
    _write_pair(moved / "grey", "p0_0", value=1)
    assert FolderConfig(root=str(moved)).build().fingerprint() != before


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no root": (shutil.rmtree, r"data.root \S+nuclei is not a folder; set data.root"),
    "no site": (
        lambda root: (shutil.rmtree(root / "grey"), shutil.rmtree(root / "stain")),
        r"nuclei has 0 sites \(none\), a federation needs at least two; add a site",
    ),
    "one site": (
        lambda root: shutil.rmtree(root / "grey"),
        r"nuclei has 1 site \(stain\), a federation needs at least two; add a site",
    ),
    "empty site": (
        lambda root: [file.unlink() for file in (root / "grey").glob("*/*")],
        "site 'grey' of nuclei has no images; add pairs or remove its folder",
    ),
    "no masks": (
        lambda root: shutil.rmtree(root / "grey/masks"),
        r"site 'grey' has no folder masks/ in \S+grey; add it, or move what is not a site",
    ),
    "no mask": (
        lambda root: (root / "grey/masks/p0_1.png").unlink(),
        "site 'grey' has images without mask: p0_1; images/ and masks/ must hold the same",
    ),
    "no image": (
        lambda root: (root / "stain/images/q3.png").unlink(),
        "site 'stain' has masks without image: q3; images/ and masks/ must hold the same",
    ),
    "other suffix": (
        lambda root: (root / "grey/images/p.jpg").touch(),
        r"p.jpg is not a file of .png, .tif, .tiff, .npy; convert or remove it",
    ),
    "same name": (
        lambda root: np.save(root / "grey/images/p0_0.npy", np.zeros((SIZE, SIZE))),
        r"p0_0.png and p0_0.npy share a name; remove one of them",
    ),
    "damaged image": (
        lambda root: (root / "stain/images/q1.png").write_bytes(b"\x89PNG\r\n"),
        r"image \S+q1.png cannot be read: .+; replace the file",
    ),
    "mask values": (
        lambda root: _write_pair(root / "grey", "p0_0", value=128),
        r"mask \S+p0_0.png holds the values 0, 128; allowed are 0 and 1, or 0 and 255",
    ),
    "mask size": (
        lambda root: Image.new("L", (20, 20)).save(root / "grey/masks/p0_0.png"),
        r"mask \S+p0_0.png is 20 x 20 pixels and its image 32 x 32; .* resample it",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_found_on_opening(root: Path, case: str) -> None:
    change, message = BROKEN[case]
    change(root)

    with pytest.raises(DataError, match=message) as caught:
        FolderConfig(root=str(root)).build()
    assert "\n" not in str(caught.value)


def test_a_large_set_is_sampled_on_opening_and_checked_on_reading(root: Path) -> None:
    """Of eight pairs two are read, the first of each site; the damaged one is the second."""
    (root / "grey/images/p0_1.png").write_bytes(b"")

    federation = FolderConfig(root=str(root), check_pairs=2).build()

    with pytest.raises(DataError, match=r"p0_1.png cannot be read"):
        federation.load("grey", 1)
    with pytest.raises(DataError, match=r"p0_1.png cannot be read"):
        FolderConfig(root=str(root), check_pairs=None).build()


def test_an_unknown_site_is_refused_with_the_sites(root: Path) -> None:
    federation = FolderConfig(root=str(root)).build()

    with pytest.raises(DataError, match="site 'UCLH' is not a site of nuclei; sites: grey, stain"):
        federation.load("UCLH", 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_regex": "_["}, r"data.group_regex '_\[' is no regular expression: .+; use one"),
        ({"image_size": 8}, "data.image_size 8 is below 32; use at least 32"),
        ({"structures": []}, r"data.structures \[\] must name each mask channel once"),
        ({"structures": ["a", "a"]}, r"data.structures \['a', 'a'\] must name each mask channel"),
        ({"check_pairs": 0}, "data.check_pairs 0 is below 1; use null"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FolderConfig(root="anywhere", **settings)  # type: ignore[arg-type]
