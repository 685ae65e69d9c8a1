"""Full disks and damaged checkpoints: a clear word, and the same bytes afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord

pytestmark = pytest.mark.chaos


class FullDisk(SilentProgress):
    """From one unit's end on, nothing larger than a few bytes can be written."""

    def __init__(self, after: tuple[str, int], patch: pytest.MonkeyPatch) -> None:
        self._after, self._patch = after, patch

    def advance(self, record: ProgressRecord) -> None:
        if (record.stage, record.index) == self._after:
            self._patch.setattr("dsfedmed_ray.run_directory.os.fsync", no_space)


def no_space(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_keeps_the_last_checkpoint(
    undisturbed: Any, before: Callable[[str], Path], run_here: Callable[..., Any]
) -> None:
    folder = before("train_federated")
    with pytest.MonkeyPatch.context() as patch:
        progress = FullDisk(("train_federated", 1), patch)
        with pytest.raises(RunDirectoryError, match=r"cannot write .*unit-000001\.pt: No space"):
            run_here(folder, "runtime.clients=serial", progress=progress)
    checkpoints = folder / "run" / "checkpoints" / "train_federated"
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "unit-000000.json",
        "unit-000000.pt",
    ]
    assert run_here(folder, "runtime.clients=serial", "resume=true") == undisturbed


def test_a_truncated_checkpoint_is_passed_over(
    undisturbed: Any, before: Callable[[str], Path], run_here: Callable[..., Any], notes: Any
) -> None:
    folder = before("train_federated")

    class CutError(Exception):
        pass

    class Cutting(SilentProgress):
        def advance(self, record: ProgressRecord) -> None:
            if (record.stage, record.index) == ("train_federated", 2):
                raise CutError

    with pytest.raises(CutError):
        run_here(folder, "runtime.clients=serial", progress=Cutting())
    newest = folder / "run" / "checkpoints" / "train_federated" / "unit-000001.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    result = run_here(folder, "runtime.clients=serial", "resume=true", progress=notes)
    assert any("unit-000001.pt is damaged and was passed over" in n for n in notes.notes)
    assert result == undisturbed
