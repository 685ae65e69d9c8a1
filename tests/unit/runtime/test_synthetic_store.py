"""A generator that cannot do its work, and a signal while a set is drawn."""

from pathlib import Path

import pytest
import torch

from dsfedmed_ray.errors import InterruptedRunError, ResourceError
from dsfedmed_ray.runtime import synthetic_store
from dsfedmed_ray.runtime.synthetic_store import JobRunner


class TooLarge:
    """A backbone that does not fit the GPU."""

    def build(self, device: str) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0\n...")


def test_a_backbone_that_does_not_fit_the_gpu() -> None:
    uploads: dict[str, Path] = {}
    with pytest.raises(ResourceError, match=r"^the GPU is too small: 2\.5 GB needed; lower .*job"):
        JobRunner(TooLarge(), uploads, torch.get_num_threads(), 0.0)


def test_a_signal_does_not_throw_a_whole_set_away(tmp_path: Path) -> None:
    """Two of two files are there when the report of the first one meets the signal."""
    reported: list[int] = []

    def on_job(index: int) -> None:
        reported.append(index)
        raise InterruptedRunError(15, "go on")

    with synthetic_store._counting_files(tmp_path, on_job):
        for index in range(2):
            (tmp_path / f"{index}.parquet").touch()
    assert reported
    assert set(reported) == {0}
