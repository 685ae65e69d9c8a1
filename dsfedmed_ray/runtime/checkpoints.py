"""Checkpoints of a running stage: whole, atomic, and the one before is kept.

A checkpoint is a ``.pt`` file of tensors and plain values, and a small JSON file written after it
that holds its SHA-256. Without a matching JSON file a checkpoint does not count.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dsfedmed_ray.run_directory import write_atomically, write_json

NUM_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        unit: the round or epoch after which it was taken, from 0.
        content: tensors and plain values by name.
    """

    unit: int
    content: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one stage.

    Args:
        folder: made when the first checkpoint is saved.
        note: receives a line when a damaged checkpoint is passed over.
    """

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        self.folder = folder
        self._note = note

    def save(self, unit: int, content: dict[str, Any]) -> None:
        """Saves a checkpoint and removes all but the newest :data:`NUM_KEPT`.

        Raises:
            RunDirectoryError: the disk is full or the folder cannot be written; the checkpoints
                that were there are intact.
        """
        path = self._tensors(unit)
        write_atomically(path, lambda temporary: save_tensors(content, temporary))
        write_json(self._seal(unit), {"unit": unit, "sha256": _sha256(path)})
        for old in self._units()[NUM_KEPT:]:
            self._seal(old).unlink(missing_ok=True)
            self._tensors(old).unlink(missing_ok=True)

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint; a damaged one is passed over with a note."""
        for unit in self._units():
            path = self._tensors(unit)
            if path.exists() and _sha256(path) == self._sealed_sha256(unit):
                content = torch.load(path, weights_only=True, map_location="cpu")
                return Checkpoint(unit, content)
            self._note(
                f"checkpoint {path.name} is damaged and was passed over; "
                "the work after the one before it is done again"
            )
        return None

    def _sealed_sha256(self, unit: int) -> str | None:
        try:
            seal: dict[str, str] = json.loads(self._seal(unit).read_text(encoding="utf-8"))
        except ValueError:  # a damaged seal seals nothing
            return None
        return seal.get("sha256")

    def _units(self) -> list[int]:
        """Units with a seal, newest first."""
        names = (path.stem for path in self.folder.glob("unit-*.json"))
        return sorted((int(name.removeprefix("unit-")) for name in names), reverse=True)

    def _tensors(self, unit: int) -> Path:
        return self.folder / f"unit-{unit:06d}.pt"

    def _seal(self, unit: int) -> Path:
        return self.folder / f"unit-{unit:06d}.json"


def save_tensors(content: Any, path: Path) -> None:
    """Writes with :func:`torch.save`.

    Raises:
        OSError: the disk is full, or takes no file of that size; torch's word for it is a
            RuntimeError about positions in its source code.
    """
    try:
        torch.save(content, path)
    except RuntimeError as error:
        raise OSError("not all of it could be written (is the disk full?)") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
