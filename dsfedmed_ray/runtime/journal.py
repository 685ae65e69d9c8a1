"""The lines of a run: progress and transfers, written as they happen, never twice, never lost.

A line belongs to a stage and a unit (round or epoch). When a run resumes, lines of finished stages
come from the stage store, lines of the running stage are kept up to its checkpoint, and what came
after it is written again by the units that are done again.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.records import ProgressRecord, Transfer
from dsfedmed_ray.run_directory import RunDirectory, unwritable, write_atomically


class Journal:
    """Appends to ``rounds.jsonl`` and ``transfers.jsonl`` of a run directory.

    Every method raises a RunDirectoryError where the disk is full, or the files cannot be written
    or are gone.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._paths = {path.name: path for path in (directory.rounds, directory.transfers)}
        for path in self._paths.values():
            try:
                path.touch()
            except OSError as error:
                raise unwritable(path, error) from error

    def progress(self, record: ProgressRecord) -> None:
        """Appends a line to ``rounds.jsonl``."""
        self._append("rounds.jsonl", [vars(record)])

    def transfers(self, transfers: Iterable[Transfer]) -> None:
        """Appends lines to ``transfers.jsonl``."""
        # Two lines a client and round: ``asdict``, which copies, would be half of what they cost.
        self._append("transfers.jsonl", map(vars, transfers))

    def keep(self, stage: str, up_to_unit: int) -> None:
        """Removes a stage's lines after a unit; -1 removes them all."""

        def kept(line: dict[str, Any]) -> bool:
            unit = line.get("index", line.get("round_index"))
            return line["stage"] != stage or (unit is not None and unit <= up_to_unit)

        for path in self._paths.values():
            _rewrite(path, (line for line in _whole_lines(path) if kept(line)))

    def save_stage(self, stage: str, folder: Path) -> None:
        """Writes a stage's lines into its store folder."""
        for name, path in self._paths.items():
            lines = (line for line in _whole_lines(path) if line["stage"] == stage)
            _rewrite(folder / name, lines)

    def restore_stage(self, stage: str, folder: Path) -> None:
        """Replaces a stage's lines by those of its store folder, at the end of the files."""
        self.keep(stage, up_to_unit=-1)
        for name in self._paths:
            self._append(name, _whole_lines(folder / name))

    def _append(self, name: str, lines: Iterable[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        path = self._paths[name]
        try:
            with open(path, "a", encoding="utf-8", opener=_existing) as target:
                target.write(text)
        except OSError as error:
            raise unwritable(path, error) from error


def _existing(path: str, flags: int) -> int:
    """A journal that is gone has lost lines: it is not begun anew."""
    return os.open(path, flags & ~os.O_CREAT)


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.open(encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(
            f"cannot read {path}: {error.strerror}; put its folder back and give "
            "resume=true, or choose another run.dir"
        ) from error
    with lines:
        for line in lines:
            if line.endswith("\n"):  # a process killed while writing leaves a torn last line
                yield json.loads(line)


def _rewrite(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as target:
            target.writelines(json.dumps(line) + "\n" for line in lines)

    write_atomically(path, write)
