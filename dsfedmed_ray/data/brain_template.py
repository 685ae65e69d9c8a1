"""The ICBM152 2009a population-average brain that ships inside nilearn's wheel.

Source: Fonov et al., NeuroImage 54(1), 313-327, 2011; 1 mm, skull-stripped, symmetric; T1 and the
probabilities of grey and white matter, each scaled to 0-255.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dsfedmed_ray.errors import DataError

Structure = Literal["white_matter", "grey_matter", "ventricles"]
STRUCTURES: tuple[Structure, ...] = ("white_matter", "grey_matter", "ventricles")

FIELD_OF_VIEW_MM = 208
"""Side of the square axial slice; the brain is 145 x 181 mm."""

_ORIGIN_MM = (-98, -134, -72)  # world position of the first voxel: right, anterior, superior
_SUPERIOR_MM = (-20, 70)  # what is kept: from the temporal lobes to the vertex
_CENTRE_MM = (0, -18)  # middle of the brain's bounding box, right and anterior

# Right, anterior, superior limits: horns and bodies in front; behind, the two atria without the
# cisterns between them.
_VENTRICLE_BOXES_MM = (
    ((-22, 22), (-14, 26), (0, 30)),
    ((-34, -11), (-48, -14), (0, 30)),
    ((11, 34), (-48, -14), (0, 30)),
)
_VENTRICLE_MIN_VOXELS = 200

SLICE_RANGE_MM: dict[Structure, tuple[float, float]] = {
    "white_matter": (-10.0, 50.0),
    "grey_matter": (-10.0, 50.0),
    "ventricles": (4.0, 26.0),
}
"""Axial positions, superior millimetres, at which a structure is always visible."""


@dataclass(frozen=True, kw_only=True)
class BrainTemplate:
    """Volumes ``uint8 [superior, anterior to posterior, left to right]``, 1 mm, 0-255.

    Attributes:
        t1: T1-weighted intensity.
        tissues: fractions of grey matter, white matter and cerebrospinal fluid, ``[3, ...]``; the
            fluid is what grey and white matter leave of the brain.
        ventricles: the lateral ventricles' share of the fluid.
    """

    t1: NDArray[np.uint8]
    tissues: NDArray[np.uint8]
    ventricles: NDArray[np.uint8]

    def slab(
        self, structures: Sequence[Structure], superior_mm: float, thickness_mm: float
    ) -> NDArray[np.float32]:
        """Averages the slices that an acquisition of this thickness covers.

        Returns:
            ``[4 + structures, side, side]`` in [0, 1]: T1, grey matter, white matter, fluid, then
            the structures.
        """
        first = round(superior_mm - thickness_mm / 2) - _SUPERIOR_MM[0]
        stop = max(first + 1, round(superior_mm + thickness_mm / 2) - _SUPERIOR_MM[0])
        maps = [self.t1, *self.tissues, *(self._structure(name) for name in structures)]
        means = [volume[first:stop].mean(axis=0, dtype=np.float32) for volume in maps]
        return (np.stack(means) / 255).astype(np.float32)

    def _structure(self, structure: Structure) -> NDArray[np.uint8]:
        if structure == "ventricles":
            return self.ventricles
        return self.tissues[0 if structure == "grey_matter" else 1]


_MAPS = ("t1", "gm", "wm")


def check_template() -> None:
    """Looks for the template's files, without reading them.

    Raises:
        DataError: nilearn is not installed, or does not hold the maps.
    """
    for name in _MAPS:
        _map_path(name)


@lru_cache(maxsize=1)
def brain_template() -> BrainTemplate:
    """Reads the template, once in a process (about a second, 20 MB).

    Raises:
        DataError: the installed nilearn does not hold the maps.
    """
    t1, grey, white = (_read_map(name) for name in _MAPS)
    brain = np.where(t1 > 0, 255, 0)
    fluid = np.clip(brain - grey.astype(np.int16) - white, 0, 255).astype(np.uint8)
    return BrainTemplate(
        t1=_axial(t1),
        tissues=np.stack([_axial(grey), _axial(white), _axial(fluid)]),
        ventricles=_axial(_ventricular_fluid(fluid)),
    )


def _map_path(name: str) -> Path:
    # find_spec, since importing nilearn itself loads scikit-learn and pandas (seconds).
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise DataError("brain_sites needs the package nilearn; install it: pip install nilearn")
    file = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    path = Path(spec.origin).parent / "datasets" / "data" / file
    if not path.exists():
        raise DataError(
            f"the installed nilearn has no {file}; reinstall it: pip install 'nilearn>=0.11'"
        )
    return path


def _read_map(name: str) -> NDArray[np.uint8]:
    import nibabel

    return np.asarray(nibabel.load(_map_path(name)).dataobj, dtype=np.uint8)


def _ventricular_fluid(fluid: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keeps the fluid in the central boxes that hangs together in pieces of some size."""
    from scipy import ndimage

    central = np.zeros(fluid.shape, bool)
    for limits_mm in _VENTRICLE_BOXES_MM:
        box = tuple(
            slice(low - origin, high - origin + 1)
            for (low, high), origin in zip(limits_mm, _ORIGIN_MM, strict=True)
        )
        central[box] = True
    pieces, _ = ndimage.label(central & (fluid >= 128))
    large = np.bincount(pieces.ravel()) >= _VENTRICLE_MIN_VOXELS
    large[0] = False
    # The rim keeps the partial volume around each piece, so that the 0.5 contour is the fluid's.
    kept = ndimage.binary_dilation(large[pieces], iterations=2)
    return np.where(kept, fluid, 0).astype(np.uint8)


def _axial(volume: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Crops to the field of view and turns to ``[superior, front to back, left to right]``."""
    low, high = (limit - _ORIGIN_MM[2] for limit in _SUPERIOR_MM)
    square = np.zeros((high - low, FIELD_OF_VIEW_MM, FIELD_OF_VIEW_MM), np.uint8)
    rows, columns = (
        centre - origin - FIELD_OF_VIEW_MM // 2
        for centre, origin in zip(reversed(_CENTRE_MM), (_ORIGIN_MM[1], _ORIGIN_MM[0]), strict=True)
    )
    upright = volume[:, :, low:high].transpose(2, 1, 0)
    source_rows = slice(max(rows, 0), min(rows + FIELD_OF_VIEW_MM, upright.shape[1]))
    source_columns = slice(max(columns, 0), min(columns + FIELD_OF_VIEW_MM, upright.shape[2]))
    target_rows = slice(source_rows.start - rows, source_rows.stop - rows)
    target_columns = slice(source_columns.start - columns, source_columns.stop - columns)
    square[:, target_rows, target_columns] = upright[:, source_rows, source_columns]
    return np.ascontiguousarray(square[:, ::-1])
