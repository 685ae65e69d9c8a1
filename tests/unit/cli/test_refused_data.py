"""What is wrong with a data set, one line each; nothing is left behind."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RUN = ["experiment=smoke", "size=toy", "method=fedavg", "runtime.clients=serial"]


def sites(folder: Path, *names: str, num_pairs: int = 5) -> Path:
    """A data set in the plain layout: grey images of 32 pixels, masks of 0 and 255."""
    for name in names:
        for part in ("images", "masks"):
            (folder / name / part).mkdir(parents=True)
        for number in range(num_pairs):
            pixels = np.full((32, 32), 10 * number, np.uint8)
            pixels[8:16, 8:16] = 255
            Image.fromarray(pixels).save(folder / name / "images" / f"{number}.png")
            Image.fromarray((pixels == 255) * np.uint8(255)).save(
                folder / name / "masks" / f"{number}.png"
            )
    return folder


def on(folder: Path, *more: str) -> list[str]:
    """A run on that data set."""
    return ["run", *RUN, "data=folder", f"data.root={folder}", *more]


def test_missing_root(refused: Callable[..., str]) -> None:
    assert refused("run", *RUN, "data=folder") == (
        "data.root is required; set data.root=VALUE on the command line"
    )


def test_root_that_is_no_folder(refused: Callable[..., str]) -> None:
    assert "nowhere is not a folder; set data.root" in refused(*on(Path("nowhere")))


def test_site_without_masks(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = sites(tmp_path / "set", "a", "b")
    shutil.rmtree(root / "b" / "masks")
    assert refused(*on(root)).startswith(f"site 'b' has no folder masks/ in {root / 'b'}; add it")


def test_unpaired_image(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = sites(tmp_path / "set", "a", "b")
    (root / "a" / "masks" / "3.png").unlink()
    assert refused(*on(root)) == (
        "site 'a' has images without mask: 3; images/ and masks/ must hold the same names"
    )


def test_unpaired_mask(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = sites(tmp_path / "set", "a", "b")
    (root / "b" / "images" / "3.png").unlink()
    assert refused(*on(root)) == (
        "site 'b' has masks without image: 3; images/ and masks/ must hold the same names"
    )


def test_mask_of_other_values(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = sites(tmp_path / "set", "a", "b")
    mask = root / "a" / "masks" / "3.png"
    Image.fromarray(np.arange(32 * 32).reshape(32, 32).astype(np.uint8)).save(mask)
    line = refused(*on(root))
    assert line == (
        f"mask {mask} holds the values 0, 1, 2, 3, 4, 5, ...; allowed are 0 and 1, or 0 and 255; "
        "threshold it or give each structure a channel"
    )


def test_mask_of_another_size(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = sites(tmp_path / "set", "a", "b")
    mask = root / "a" / "masks" / "3.png"
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(mask)
    line = refused(*on(root))
    assert line == (
        f"mask {mask} is 20 x 20 pixels and its image 32 x 32; a mask has its image's size or is "
        "smaller by one integer factor; resample it"
    )


def test_truncated_image(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = sites(tmp_path / "set", "a", "b")
    image = root / "b" / "images" / "2.png"
    image.write_bytes(image.read_bytes()[:60])
    line = refused(*on(root))
    assert line.startswith(f"image {image} cannot be read: ")
    assert line.endswith("replace the file, or remove image and mask")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("kind", ["image", "mask"])
def test_file_that_cannot_be_read(
    kind: str, suffix: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """A text under the name of an image or an array."""
    root = sites(tmp_path / "set", "a", "b")
    folder = root / "b" / f"{kind}s"
    (folder / "2.png").unlink()
    (folder / f"2{suffix}").write_text("no pixels")
    line = refused(*on(root))
    path, remedy = folder / f"2{suffix}", "replace the file, or remove image and mask"
    assert re.fullmatch(f"{kind} {re.escape(str(path))} cannot be read: .+; {remedy}", line)


def test_empty_site(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = sites(tmp_path / "set", "a", "b")
    sites(root, "c", num_pairs=0)
    assert refused(*on(root)) == ("site 'c' of set has no images; add pairs or remove its folder")


def test_one_site(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = sites(tmp_path / "set", "a")
    assert refused(*on(root)) == ("set has 1 site (a), a federation needs at least two; add a site")
