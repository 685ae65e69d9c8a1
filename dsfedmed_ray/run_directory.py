"""Every path a run writes, and the only functions that write whole files.

``runs/<name>/`` is a contract that reports, studies and users read; see docs/architecture.md.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsfedmed_ray.errors import RunDirectoryError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file so that readers see the old content or the new, never a part.

    Args:
        path: the final file.
        write: writes the content to the temporary path that it is given.

    Raises:
        RunDirectoryError: the disk is full or the folder cannot be written; ``path`` is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> RunDirectoryError:
    """The error of a file that the run directory cannot take."""
    return RunDirectoryError(
        f"cannot write {path}: {error.strerror or error}; "
        "free space or choose another folder with run.dir=PATH"
    )


def copy_atomically(source: Path, target: Path) -> None:
    """Copies a file so that readers see the old content or the new.

    Raises:
        RunDirectoryError: the target cannot be written.
    """
    write_atomically(target, lambda temporary: _copy(source, temporary))


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; NaN and infinity are refused, since JSON has neither."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a ``.jsonl`` file; none if the file does not exist.

    A last line without its end was being written when its process died, and is no line.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def summary(self) -> Path:
        """Metrics, communication, times and versions; written last."""
        return self.root / "summary.json"

    @property
    def rounds(self) -> Path:
        """One line a round or epoch."""
        return self.root / "rounds.jsonl"

    @property
    def transfers(self) -> Path:
        """The ledger, one line a payload."""
        return self.root / "transfers.jsonl"

    @property
    def synthetic(self) -> Path:
        """Parquet files of the synthetic set."""
        return self.root / "synthetic"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints by stage."""
        return self.root / "checkpoints"

    @property
    def lightweight_model(self) -> Path:
        """The final lightweight model's weights."""
        return self.root / "models" / "lightweight.safetensors"

    @property
    def figures(self) -> Path:
        """Pictures."""
        return self.root / "figures"

    @property
    def report(self) -> Path:
        """The report as one HTML page."""
        return self.root / "report.html"
