"""Publishing finished folders to object stores, and fetching them back verified.

An object store has no atomic rename, so a manifest written last takes its place: a folder without
a manifest is not there, however many of its files are. What a URI may be:
:mod:`~dsfedmed_ray.runtime.object_stores`.

From a shell: ``python -m dsfedmed_ray.runtime.publishing publish FOLDER URI`` and ``... fetch URI
FOLDER``.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from dsfedmed_ray.errors import CheckpointError, RunDirectoryError, UserError
from dsfedmed_ray.runtime.object_stores import make_parents, one_line, open_store, shown

MANIFEST_NAME = "manifest.json"
_CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """One line of the manifest.

    Attributes:
        name: path below the published folder, with forward slashes.
        num_bytes: size.
        sha256: hexadecimal digest of the content.
    """

    name: str
    num_bytes: int
    sha256: str


def publish(folder: Path, uri: str) -> None:
    """Copies a finished folder to an object store, its manifest last.

    Publishing the same content twice writes nothing. Where other content is published already, its
    manifest goes first, so that no reader takes the mixture for a whole.

    Args:
        folder: a finished run directory or stage-store entry.
        uri: where its files go, for example ``s3://bucket/runs/embedded``.

    Raises:
        RunDirectoryError: the folder has no file, or the store cannot be written.
        ConfigurationError: the URI names no store that ``pyarrow.fs`` knows.
    """
    store, root = open_store(uri)
    files = _describe(folder)
    manifest = json.dumps({"files": [asdict(file) for file in files]}, indent=1).encode()
    manifest_path = f"{root}/{MANIFEST_NAME}"
    try:
        if _exists(store, manifest_path):
            with store.open_input_stream(manifest_path) as published:
                if published.read() == manifest:
                    return
            store.delete_file(manifest_path)
        for file in files:
            with (folder / file.name).open("rb") as source:
                _upload(store, f"{root}/{file.name}", source)
        _write(store, manifest_path, [manifest])
    except OSError as error:
        raise RunDirectoryError(
            f"cannot publish {folder} to {shown(uri)}: {one_line(error)}; "
            "check that the bucket exists and that your credentials may write to it"
        ) from error


def is_published(uri: str) -> bool:
    """Whether a whole folder is at the URI, that is, whether its manifest is.

    Raises:
        CheckpointError: the store cannot be read.
        ConfigurationError: the URI names no store that ``pyarrow.fs`` knows.
    """
    store, root = open_store(uri)
    try:
        return _exists(store, f"{root}/{MANIFEST_NAME}")
    except OSError as error:
        raise _unreadable(uri, error) from error


def fetch(uri: str, folder: Path) -> None:
    """Copies a published folder to this machine; the folder appears only when all of it is right.

    Args:
        uri: what :func:`publish` was given.
        folder: a folder that does not exist yet.

    Raises:
        CheckpointError: nothing is published there, or a file's size or hash is not the manifest's.
        RunDirectoryError: the folder exists, or this machine cannot write it.
        ConfigurationError: the URI names no store that ``pyarrow.fs`` knows.
    """
    if folder.exists():
        raise RunDirectoryError(f"{folder} exists; fetch into a folder that does not")
    store, root = open_store(uri)
    files = _read_manifest(store, root, uri)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
            partial = Path(beside) / folder.name
            partial.mkdir()
            for file in files:
                _download(store, root, uri, file, partial)
            partial.rename(folder)
    except OSError as error:
        raise RunDirectoryError(
            f"cannot fetch {shown(uri)} into {folder}: {one_line(error)}; "
            "check the free space and the connection"
        ) from error


def _unreadable(uri: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"cannot read {shown(uri)}: {one_line(error)}; "
        "check the address and that your credentials may read it"
    )


def _exists(store: Any, path: str) -> bool:
    from pyarrow.fs import FileType

    return bool(store.get_file_info(path).type == FileType.File)


def _describe(folder: Path) -> list[PublishedFile]:
    """Name, size and hash of every file below a folder, by name."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if name.as_posix() != MANIFEST_NAME]
    if not names:
        raise RunDirectoryError(f"{folder} holds no file to publish; give a finished folder")
    return [_describe_file(folder, name) for name in names]


def _describe_file(folder: Path, name: Path) -> PublishedFile:
    with (folder / name).open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return PublishedFile(
        name=name.as_posix(), num_bytes=(folder / name).stat().st_size, sha256=digest
    )


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk


def _upload(store: Any, path: str, source: BinaryIO) -> None:
    _write(store, path, _chunks(source))


def _write(store: Any, path: str, chunks: Any) -> None:
    make_parents(store, path)
    with store.open_output_stream(path) as target:
        for chunk in chunks:
            target.write(chunk)


def _read_manifest(store: Any, root: str, uri: str) -> list[PublishedFile]:
    try:
        if not _exists(store, f"{root}/{MANIFEST_NAME}"):
            raise CheckpointError(
                f"nothing is published at {shown(uri)}: it has no {MANIFEST_NAME}; "
                "give the address that the run was published to"
            )
        with store.open_input_stream(f"{root}/{MANIFEST_NAME}") as stream:
            text = stream.read()
    except OSError as error:
        raise _unreadable(uri, error) from error
    try:
        files = [PublishedFile(**file) for file in json.loads(text)["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{MANIFEST_NAME} at {shown(uri)} is damaged; publish the folder again"
        ) from error
    for file in files:
        path = PurePosixPath(file.name)
        if path.is_absolute() or ".." in path.parts:
            raise CheckpointError(
                f"{MANIFEST_NAME} at {shown(uri)} names {file.name!r}, outside its own folder; "
                "do not use it"
            )
    return files


def _download(store: Any, root: str, uri: str, file: PublishedFile, folder: Path) -> None:
    digest = hashlib.sha256()
    num_bytes = 0
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source = store.open_input_stream(f"{root}/{file.name}")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file.name} is missing at {shown(uri)}; publish the folder again"
        ) from error
    with source, target.open("wb") as content:
        for chunk in _chunks(source):
            content.write(chunk)
            digest.update(chunk)
            num_bytes += len(chunk)
    if (num_bytes, digest.hexdigest()) != (file.num_bytes, file.sha256):
        raise CheckpointError(
            f"{file.name} at {shown(uri)} is damaged: {num_bytes} bytes with sha256 "
            f"{digest.hexdigest()[:12]}, the manifest says {file.num_bytes} with "
            f"{file.sha256[:12]}; publish the folder again"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Publishes or fetches a folder; what the user can mend ends with exit code 2 and one line."""
    parser = argparse.ArgumentParser(prog="python -m dsfedmed_ray.runtime.publishing")
    commands = parser.add_subparsers(dest="command", required=True)
    to_store = commands.add_parser("publish", help="copy a finished folder to an object store")
    to_store.add_argument("folder", type=Path)
    to_store.add_argument("uri")
    from_store = commands.add_parser("fetch", help="copy a published folder to this machine")
    from_store.add_argument("uri")
    from_store.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    try:
        if given.command == "publish":
            publish(given.folder, given.uri)
        else:
            fetch(given.uri, given.folder)
    except UserError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
