"""Reads one image or mask file: PNG, TIFF or NPY, 8 or 16 bits, grey or colour."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dsfedmed_ray.errors import DataError
from dsfedmed_ray.records import MaskArray

SUFFIXES = (".png", ".tif", ".tiff", ".npy")

Kind = Literal["image", "mask"]


def read_image(path: Path) -> NDArray[np.float32]:
    """Reads an image as ``[height, width]`` or ``[height, width, 3]``, in its own range.

    Raises:
        DataError: the file is damaged, has another shape, or holds NaN or infinity.
    """
    pixels = _read(path, "image")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3) or not pixels.size:
        raise DataError(
            f"image {path} has shape {_dims(pixels.shape)}; allowed are height x width and "
            "height x width x 3; save it in one of these"
        )
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"image {path} holds NaN or infinity; allowed are finite values; mend it")
    return values


def read_mask(path: Path, structures: Sequence[str]) -> MaskArray:
    """Reads a mask as ``[height, width, structures]`` of 0 and 1.

    A grey mask that was saved as colour, all channels equal, counts as one channel.

    Raises:
        DataError: the file is damaged, has other channels than ``structures``, or holds other
            values than 0 and 1 or 0 and 255.
    """
    pixels = _read(path, "mask")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim == 3 and len(structures) == 1 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    if pixels.ndim != 3 or pixels.shape[2] != len(structures) or not pixels.size:
        raise DataError(
            f"mask {path} has shape {_dims(pixels.shape)}; expected height x width x "
            f"{len(structures)}, one channel for each of data.structures "
            f"({', '.join(structures)}); name its channels there, or save it with these"
        )
    values = np.unique(pixels)
    if not (np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all()):
        shown = ", ".join(f"{value:g}" for value in values[:6])
        raise DataError(
            f"mask {path} holds the values {shown}{', ...' if len(values) > 6 else ''}; allowed "
            "are 0 and 1, or 0 and 255; threshold it or give each structure a channel"
        )
    return (pixels > 0).astype(np.uint8)


def check_mask_size(path: Path, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    """Checks that a mask has its image's size, or that of the image reduced by an integer.

    Args:
        path: the mask's file, for the message.
        image: shape of the image, height and width first.
        mask: shape of the mask, height and width first.

    Raises:
        DataError: no integer factor explains the size.
    """
    factor = image[0] // mask[0]
    if factor < 1 or (mask[0] * factor, mask[1] * factor) != image[:2]:
        raise DataError(
            f"mask {path} is {_dims(mask[:2])} pixels and its image {_dims(image[:2])}; a mask has "
            "its image's size or is smaller by one integer factor; resample it"
        )


def _read(path: Path, kind: Kind) -> NDArray[Any]:
    from PIL import Image

    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if path.suffix.lower() in (".tif", ".tiff"):
            return _read_tiff(path, kind)
        return _read_with_pillow(path, kind)
    # What Pillow, tifffile and NumPy raise on damaged files; SyntaxError is Pillow's broken PNG.
    except (
        OSError,
        ValueError,
        EOFError,
        SyntaxError,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{kind} {path} cannot be read: {reason}; replace the file, or remove image and mask"
        ) from error


def _read_tiff(path: Path, kind: Kind) -> NDArray[Any]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) != 1:
            raise ValueError(f"it holds {len(tiff.pages)} pages, allowed is one")
        page = tiff.pages[0]
        # tifffile keeps 16-bit colour, which Pillow reduces; Pillow knows LZW and JPEG, for which
        # tifffile wants another package.
        compressions = tifffile.COMPRESSION
        if page.compression not in (compressions.LZW, compressions.JPEG):
            return np.asarray(page.asarray())
    return _read_with_pillow(path, kind)


def _read_with_pillow(path: Path, kind: Kind) -> NDArray[Any]:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        if image.mode == "P" and kind == "mask":
            return np.asarray(image)  # a palette mask stores labels as indices
        if image.mode == "LA":
            return np.asarray(image.convert("L"))
        if image.mode in ("P", "PA", "RGBA", "CMYK", "YCbCr"):
            return np.asarray(image.convert("RGB"))
        return np.asarray(image)


def _dims(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape) or "scalar"
