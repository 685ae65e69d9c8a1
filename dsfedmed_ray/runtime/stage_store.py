"""Finished stages, addressed by what they depend on.

A stage's key is a hash of its name, the configuration that touches it, the keys of its inputs and
the package's own code. Runs, trials and comparisons that agree on all of these share the stage.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from dsfedmed_ray.errors import CheckpointError, RunDirectoryError
from dsfedmed_ray.runtime.object_stores import below
from dsfedmed_ray.runtime.publishing import fetch, is_published, publish

POLL_SECONDS = 0.2
"""Between two looks at a stage that another run is doing."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

_CODE_THAT_DECIDES = (
    "seeding.py",
    "records.py",
    "data",
    "models",
    "learning",
    "evaluation",
    "accounting",
    "runtime",
    "methods",
)


def described(value: Any) -> Any:
    """A configuration value as JSON: dataclasses by class name and fields.

    Raises:
        TypeError: the value is no dataclass, mapping, sequence, path, string, number or None.
    """
    if is_dataclass(value) and not isinstance(value, type):
        content = {field.name: described(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__, **content}
    if isinstance(value, dict):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a stage key holds plain configuration only, got {type(value).__name__}")


@cache
def code_fingerprint() -> str:
    """A hash of the package's files, code and weights, that can change a stage's result."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for part in _CODE_THAT_DECIDES:
        root = package / part
        files = sorted(root.rglob("*")) if root.is_dir() else [root]
        for path in files:
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            digest.update(str(path.relative_to(package)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def stage_key(stage: str, settings: dict[str, Any], inputs: list[str]) -> str:
    """The key of a stage, ``<stage>-<16 hex digits>``.

    Args:
        stage: its name.
        settings: the configuration that touches it.
        inputs: the keys of the stages it reads.
    """
    content = [stage, described(settings), inputs, code_fingerprint()]
    text = json.dumps(content, sort_keys=True)
    return f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class StageStore:
    """A folder of finished stages, one sub-folder a key, published whole.

    Args:
        root: the folder.
        remote: address of an object store through which machines share their stages. What is
            finished here goes there; what only they have comes from there, verified, where
            :meth:`alone` is entered. None keeps everything here.

    With ``remote``, methods also raise a RunDirectoryError where it cannot be written, and a
    CheckpointError where it cannot be read or what it holds is damaged.
    """

    def __init__(self, root: Path, remote: str | None = None) -> None:
        self.root = root
        self._remote = remote
        self._at_remote: set[str] = set()

    def find(self, key: str) -> Path | None:
        """The folder of a finished stage, or None; one that the remote lacks is sent there."""
        folder = self.root / key
        if not folder.is_dir():
            return None
        self._send(key)
        return folder

    @contextmanager
    def alone(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Holds a key: of several runs that need a stage at once, one does it and the others wait.

        The lock is the operating system's and ends with the process that holds it, however it
        ends. Who holds a stage's key asks for no other stage's, so that no two can wait for each
        other. What runs that were killed have left half-written is removed on entering.

        Args:
            key: of the stage; look for it again inside the block.
            waiting: called every :data:`POLL_SECONDS` while another run holds the key; it may
                raise to give up.

        Raises:
            RunDirectoryError: the store cannot be written.
        """
        path = self.root / ".locks" / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
        except OSError as error:
            raise self._unwritable(error) from error
        with file:
            while not _locked(file):
                waiting()
                time.sleep(POLL_SECONDS)
            self._remove_left_behind(key)
            self._take(key)
            yield

    @contextmanager
    def publishing(self, key: str) -> Iterator[Path]:
        """Gives a temporary folder and publishes it under ``key`` when the block ends well.

        If another run published the same key meanwhile, its folder stays: the content is the same.

        Raises:
            RunDirectoryError: the store cannot be written; nothing is published. An OSError of the
                block that is not about the store is raised as it is.
        """
        temporary = self.root / f".{key}.{uuid.uuid4().hex[:8]}"
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield temporary
            self._publish(temporary, self.root / key)
        except OSError as error:
            if _is_about(error, temporary):
                raise self._unwritable(error) from error
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._send(key)

    def _send(self, key: str) -> None:
        """Copies a finished stage to the remote store, unless it is there."""
        if self._remote is None or key in self._at_remote:
            return
        uri = below(self._remote, key)
        if not is_published(uri):
            publish(self.root / key, uri)
        self._at_remote.add(key)

    def _take(self, key: str) -> None:
        """Copies a stage that only the remote store has from there."""
        if self._remote is None or (self.root / key).is_dir():
            return
        uri = below(self._remote, key)
        if not is_published(uri):
            return
        try:
            fetch(uri, self.root / key)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}, or remove {key} from store.remote and the stage runs again"
            ) from error
        self._at_remote.add(key)

    def _remove_left_behind(self, held: str) -> None:
        """Removes temporary folders whose writers are dead: nobody holds their keys.

        Args:
            held: the key that the caller holds; its other writers are dead as well.
        """
        for folder in self.root.glob(".*.????????"):
            key = folder.name[1:].rpartition(".")[0]
            with (self.root / ".locks" / key).open("a") as file:
                if key == held or _locked(file):
                    shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, temporary: Path, final: Path) -> None:
        try:
            os.rename(temporary, final)
        except OSError:
            if not final.is_dir():
                raise

    def _unwritable(self, error: OSError) -> RunDirectoryError:
        return RunDirectoryError(
            f"cannot write the stage store {self.root}: {error.strerror or error}; "
            "free space or choose another folder with store.dir=PATH"
        )


def _is_about(error: OSError, folder: Path) -> bool:
    """Whether an error says that a folder cannot be written; else it is about something else."""
    if error.filename is not None and Path(error.filename).is_relative_to(folder):
        return True
    # Writers of tensors know neither path nor number of their errors.
    return error.errno in _NO_SPACE or (type(error) is OSError and error.errno is None)


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
