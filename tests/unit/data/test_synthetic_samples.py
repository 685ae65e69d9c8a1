"""The synthetic set's columns, and that pyarrow alone reads them back."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsfedmed_ray.data.synthetic_samples import (
    from_table,
    read_synthetic,
    synthetic_schema,
    to_table,
    write_synthetic,
)
from dsfedmed_ray.errors import DataError
from dsfedmed_ray.records import SyntheticSample


def sample(name: str, size: int = 4) -> SyntheticSample:
    pixels = np.arange(size * size * 3, dtype=np.uint8).reshape(size, size, 3)
    return SyntheticSample(
        sample_id=name,
        image=pixels,
        mask=(pixels[..., :2] > 20).astype(np.uint8),
        client="a",
        mask_origin="perturbed",
        style_origin="client",
        seed=2**62,
    )


def test_round_trip_is_sorted(tmp_path: Path) -> None:
    write_synthetic(to_table([sample("c"), sample("a")]), tmp_path / "part-0.parquet")
    write_synthetic(to_table([sample("b")]), tmp_path / "part-1.parquet")
    read = read_synthetic(tmp_path)
    assert [one.sample_id for one in read] == ["a", "b", "c"]
    assert np.array_equal(read[0].image, sample("a").image)
    assert np.array_equal(read[0].mask, sample("a").mask)
    assert read[0].seed == 2**62
    assert read[0].mask_origin == "perturbed"


def test_schema_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    write_synthetic(to_table([sample("a")]), path)
    assert pq.read_schema(path).equals(synthetic_schema(4, 2))
    assert isinstance(pq.read_schema(path).field("image").type, pa.FixedShapeTensorType)


def test_slices_of_a_table(tmp_path: Path) -> None:
    table = to_table([sample("a"), sample("b"), sample("c")])
    assert [one.sample_id for one in from_table(table.slice(1, 2))] == ["b", "c"]


def test_wrong_sets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the synthetic set is empty"):
        to_table([])
    with pytest.raises(DataError, match="synthetic samples have the shapes"):
        to_table([sample("a"), sample("b", size=8)])
    with pytest.raises(DataError, match="holds no synthetic set"):
        read_synthetic(tmp_path)
    pq.write_table(pa.table({"image": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="is no synthetic set: it lacks"):
        read_synthetic(tmp_path)
