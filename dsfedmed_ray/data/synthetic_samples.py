"""The Arrow schema of the synthetic set, in one place; readable with ``pyarrow`` alone.

One row is one image: ``image`` and ``mask`` are Arrow's fixed-shape tensors of ``uint8``, rows,
columns, channels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dsfedmed_ray.errors import DataError
from dsfedmed_ray.records import SyntheticSample


def synthetic_schema(image_size: int, num_structures: int) -> pa.Schema:
    """The columns.

    Args:
        image_size: side of the square images, pixels.
        num_structures: mask channels.
    """
    return pa.schema(
        [
            ("image", pa.fixed_shape_tensor(pa.uint8(), (image_size, image_size, 3))),
            ("mask", pa.fixed_shape_tensor(pa.uint8(), (image_size, image_size, num_structures))),
            ("client", pa.string()),
            ("mask_origin", pa.string()),
            ("style_origin", pa.string()),
            ("seed", pa.int64()),
            ("sample_id", pa.string()),
        ]
    )


def to_table(samples: Sequence[SyntheticSample]) -> pa.Table:
    """Samples as a table, in the order given.

    Raises:
        DataError: there is none, or their shapes differ.
    """
    if not samples:
        raise DataError("the synthetic set is empty; generate at least one sample")
    schema = synthetic_schema(samples[0].image.shape[0], samples[0].mask.shape[2])
    columns = [
        _tensors([sample.image for sample in samples]),
        _tensors([sample.mask for sample in samples]),
        pa.array([sample.client for sample in samples]),
        pa.array([sample.mask_origin for sample in samples]),
        pa.array([sample.style_origin for sample in samples]),
        pa.array([sample.seed for sample in samples], pa.int64()),
        pa.array([sample.sample_id for sample in samples]),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _tensors(arrays: Sequence[NDArray[np.uint8]]) -> pa.Array:
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise DataError(
            f"synthetic samples have the shapes {sorted(shapes)}; generate them at one image_size"
        )
    # Arrow would record the memory order of a channels-first image as a permutation.
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(np.stack(arrays)))


def from_table(table: pa.Table) -> list[SyntheticSample]:
    """The samples of a table, in its order."""
    images, masks = _arrays(table["image"]), _arrays(table["mask"])
    rows = table.drop_columns(["image", "mask"]).to_pylist()
    return [
        SyntheticSample(image=image, mask=mask, **row)
        for image, mask, row in zip(images, masks, rows, strict=True)
    ]


def _arrays(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    return np.concatenate([chunk.to_numpy_ndarray() for chunk in column.chunks])


def write_synthetic(table: pa.Table, path: Path) -> None:
    """Writes a table of :func:`to_table` as one Parquet file."""
    pq.write_table(table, path, compression="zstd")


def read_synthetic(folder: Path) -> list[SyntheticSample]:
    """Every sample of a folder of Parquet files, sorted by sample id.

    Raises:
        DataError: the folder holds no Parquet file or one with other columns.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise DataError(f"{folder} holds no synthetic set; run the synthesize stage first")
    samples: list[SyntheticSample] = []
    for file in files:
        table = pq.read_table(file)
        missing = set(synthetic_schema(1, 1).names) - set(table.column_names)
        if missing:
            raise DataError(
                f"{file} is no synthetic set: it lacks {sorted(missing)}; synthesize it again"
            )
        samples.extend(from_table(table))
    return sorted(samples, key=lambda sample: sample.sample_id)


def in_own_style(client: str, samples: Sequence[SyntheticSample]) -> list[SyntheticSample]:
    """A client's samples that are meant to look like its images; shifted styles are not."""
    return [
        sample for sample in samples if (sample.client, sample.style_origin) == (client, "client")
    ]
