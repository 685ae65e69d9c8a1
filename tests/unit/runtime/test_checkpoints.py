"""Whole checkpoints or none, and the one before."""

import errno
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytest
import torch

from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.runtime.checkpoints import CheckpointFolder


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path, notes: list[str]) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "stage", notes.append)


def content(unit: int) -> dict[str, Any]:
    return {"weight": torch.full((3,), float(unit)), "best": {"score": None, "unit": unit}}


def test_nothing_is_there_at_first(folder: CheckpointFolder) -> None:
    assert folder.newest() is None
    assert not folder.folder.exists()


def test_the_newest_comes_back_and_two_are_kept(folder: CheckpointFolder) -> None:
    for unit in (0, 1, 2, 10):
        folder.save(unit, content(unit))
    newest = folder.newest()
    assert newest is not None
    assert newest.unit == 10
    assert torch.equal(newest.content["weight"], torch.full((3,), 10.0))
    assert newest.content["best"] == {"score": None, "unit": 10}
    assert sorted(path.name for path in folder.folder.iterdir()) == [
        "unit-000002.json",
        "unit-000002.pt",
        "unit-000010.json",
        "unit-000010.pt",
    ]


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_one_is_passed_over_with_a_note(
    damage: str, folder: CheckpointFolder, notes: list[str]
) -> None:
    folder.save(4, content(4))
    folder.save(5, content(5))
    path = folder.folder / "unit-000005.pt"
    whole = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "changed":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    else:
        path.unlink()
    newest = folder.newest()
    assert newest is not None
    assert newest.unit == 4
    assert notes == [
        "checkpoint unit-000005.pt is damaged and was passed over; "
        "the work after the one before it is done again"
    ]


def test_tensors_without_a_seal_do_not_count(folder: CheckpointFolder, notes: list[str]) -> None:
    """The process ended between the two files."""
    folder.save(0, content(0))
    folder.save(1, content(1))
    (folder.folder / "unit-000001.json").unlink()
    newest = folder.newest()
    assert newest is not None
    assert newest.unit == 0
    assert notes == []


def test_a_full_disk_leaves_the_last_one_whole(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.save(0, content(0))

    def full(value: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunDirectoryError, match=r"No space left on device; free space or choose"):
        folder.save(1, content(1))
    newest = folder.newest()
    assert newest is not None
    assert newest.unit == 0
    assert sorted(path.name for path in folder.folder.iterdir()) == [
        "unit-000000.json",
        "unit-000000.pt",
    ]


def test_no_code_is_loaded_from_a_checkpoint(folder: CheckpointFolder) -> None:
    """Only tensors and plain values come back; a class from outside is refused."""
    folder.save(0, {"path": Path("somewhere")})
    with pytest.raises(UnpicklingError, match="Weights only"):
        folder.newest()
