"""Reading files: what is accepted in which form, and one line for what is not."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from dsfedmed_ray.data.image_files import check_mask_size, read_image, read_mask
from dsfedmed_ray.errors import DataError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.arange(144, dtype=np.uint8).reshape(6, 8, 3)
ONE = ("foreground",)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_eight_bits_come_back(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)

    np.testing.assert_array_equal(read_image(path), pixels.astype(np.float32))


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3)])
def test_sixteen_bit_tiff_keeps_its_range(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = (np.arange(np.prod(shape), dtype=np.uint16) * 400).reshape(shape)
    tifffile.imwrite(tmp_path / "a.tif", pixels)

    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pixels.astype(np.float32))


def test_sixteen_bit_png_keeps_its_range(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 1000).save(tmp_path / "a.png")

    assert read_image(tmp_path / "a.png").max() == 47_000


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff_is_read(tmp_path: Path, compression: str) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.tif", compression=compression)

    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), COLOUR.astype(np.float32))


def test_alpha_and_palettes_become_colour(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(GREY).convert("LA").save(tmp_path / "grey_alpha.png")
    Image.fromarray(GREY).convert("P").save(tmp_path / "palette.png")

    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), COLOUR.astype(np.float32))
    np.testing.assert_array_equal(read_image(tmp_path / "grey_alpha.png"), GREY.astype(np.float32))
    assert read_image(tmp_path / "palette.png").shape == (6, 8, 3)


def test_an_array_of_one_channel_is_grey(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY[..., None])

    assert read_image(tmp_path / "a.npy").shape == (6, 8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"broken{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    if suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])

    with pytest.raises(DataError, match=rf"^image \S+broken{suffix} cannot be read: .+; replace"):
        read_image(path)


def test_what_is_no_image_is_named_in_one_line(tmp_path: Path) -> None:
    for suffix in (".png", ".tif", ".npy"):
        path = tmp_path / f"text{suffix}"
        path.write_text("not an image\nat all\n")
        with pytest.raises(DataError, match="cannot be read") as caught:
            read_mask(path, ONE)
        assert "\n" not in str(caught.value)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], object))

    with pytest.raises(DataError, match=r"a.npy cannot be read: Object arrays cannot be loaded"):
        read_image(tmp_path / "a.npy")


def test_a_stack_of_pages_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY) for _ in range(4)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])

    with pytest.raises(DataError, match="it holds 4 pages, allowed is one"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("shape", [(3, 6, 8), (6, 8, 2), (6,), (2, 6, 8, 3), (0, 8)])
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))

    with pytest.raises(DataError, match=r"a.npy has shape .+; allowed are height x width and"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_pixels_are_refused(tmp_path: Path, value: float) -> None:
    np.save(tmp_path / "a.npy", np.array([[0.0, value]]))

    with pytest.raises(DataError, match="holds NaN or infinity"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("foreground", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_masks_of_one_and_of_255_are_the_same(tmp_path: Path, foreground: int, dtype: type) -> None:
    mask = np.zeros((6, 8), dtype)
    mask[2, 3] = foreground
    np.save(tmp_path / "m.npy", mask)

    read = read_mask(tmp_path / "m.npy", ONE)

    assert read.shape == (6, 8, 1)
    assert read.dtype == np.uint8
    assert read.sum() == read[2, 3, 0] == 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_mask_of_any_png_mode_is_one_channel(tmp_path: Path, mode: str) -> None:
    """A palette mask stores its label, here 1, whatever colour the palette gives it."""
    mask = np.zeros((6, 8), np.uint8)
    mask[2, 3] = 1 if mode == "P" else 255
    image = Image.fromarray(mask)
    if mode == "P":
        image = Image.new("P", (8, 6))
        image.putpalette([0, 0, 0, 200, 30, 30])
        image.putpixel((3, 2), 1)
    else:
        image = image.convert(mode)
    image.save(tmp_path / "m.png")

    read = read_mask(tmp_path / "m.png", ONE)

    assert read.shape == (6, 8, 1)
    assert read.sum() == read[2, 3, 0] == 1


def test_channels_are_structures(tmp_path: Path) -> None:
    mask = np.zeros((6, 8, 2), np.uint8)
    mask[0, 0, 1] = 1
    np.save(tmp_path / "m.npy", mask)

    np.testing.assert_array_equal(read_mask(tmp_path / "m.npy", ("disc", "cup")), mask)
    with pytest.raises(
        DataError, match=r"m.npy has shape 6 x 8 x 2; expected height x width x 1, .*\(foreground\)"
    ):
        read_mask(tmp_path / "m.npy", ONE)


@pytest.mark.parametrize("values", [(0, 2), (1, 255), (0, 1, 255), (0.5, 1)])
def test_other_mask_values_are_refused(tmp_path: Path, values: tuple[float, ...]) -> None:
    np.save(tmp_path / "m.npy", np.array([values]))

    shown = ", ".join(f"{value:g}" for value in values)
    with pytest.raises(
        DataError, match=f"m.npy holds the values {shown}; allowed are 0 and 1, or 0 and 255"
    ):
        read_mask(tmp_path / "m.npy", ONE)


def test_many_mask_values_are_cut(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", GREY)

    with pytest.raises(DataError, match=r"0, 1, 2, 3, 4, 5, \.\.\.; allowed"):
        read_mask(tmp_path / "m.npy", ONE)


@pytest.mark.parametrize("mask", [(12, 20), (6, 10), (3, 5)])
def test_an_integer_factor_explains_a_smaller_mask(mask: tuple[int, int]) -> None:
    check_mask_size(Path("m.png"), (12, 20, 3), mask)


@pytest.mark.parametrize("mask", [(12, 10), (24, 40), (5, 20), (7, 11), (20, 12)])
def test_any_other_mask_size_is_refused(mask: tuple[int, int]) -> None:
    with pytest.raises(
        DataError,
        match=f"mask m.png is {mask[0]} x {mask[1]} pixels and its image 12 x 20; .*one integer",
    ):
        check_mask_size(Path("m.png"), (12, 20, 3), mask)
