"""Addresses of object stores: which are allowed, what lies below them, whether they can be written.

Stores are named by URI and reached through ``pyarrow.fs``: ``s3://bucket/path``,
``gs://bucket/path`` and ``file:///path``. An S3 server other than Amazon's is named in the query:
``s3://bucket/path?endpoint_override=HOST:PORT&scheme=http``.
"""

import uuid
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from dsfedmed_ray.errors import ConfigurationError, RunDirectoryError

SCHEMES = ("s3", "gs", "file")


def check_address(key: str, uri: str) -> None:
    """Checks the address that a setting holds; nothing is asked over the network.

    Args:
        key: the setting, for the message.
        uri: its value.

    Raises:
        ConfigurationError: it names no store, or holds credentials, which a configuration would
            keep and publish.
    """
    parts = urlsplit(uri)
    place = parts.path.strip("/") if parts.scheme == "file" else parts.netloc
    if parts.scheme not in SCHEMES or not place:
        raise ConfigurationError(
            f"{key} is {shown(uri)!r}; allowed: s3://BUCKET/PATH, gs://BUCKET/PATH, file:///PATH, "
            "or null"
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{key} holds a user or password before {shown(uri)!r}, which every run directory "
            "would repeat; give credentials in the environment (AWS_ACCESS_KEY_ID and the like)"
        )


def below(uri: str, name: str) -> str:
    """The address of a folder inside another; the query stays."""
    parts = urlsplit(uri)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()


def check_writable(uri: str) -> None:
    """Writes a few bytes to a store and removes them: hours of work shall not end at its door.

    Raises:
        RunDirectoryError: the store cannot be written.
        ConfigurationError: the URI names no store that ``pyarrow.fs`` knows.
    """
    store, root = open_store(uri)
    path = f"{root}/.writable-{uuid.uuid4().hex[:8]}"
    try:
        make_parents(store, path)
        with store.open_output_stream(path) as target:
            target.write(b"dsfedmed")
        store.delete_file(path)
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write {shown(uri)}: {one_line(error)}; "
            "check that the bucket exists and that your credentials may write to it"
        ) from error


def open_store(uri: str) -> tuple[Any, str]:
    """The store and the path in it.

    Raises:
        ConfigurationError: the URI names no store that ``pyarrow.fs`` knows.
    """
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    try:
        store, path = FileSystem.from_uri(uri)
    except (ArrowException, OSError) as error:
        raise ConfigurationError(
            f"{shown(uri)!r} is not the address of a store; "
            "allowed are s3://BUCKET/PATH, gs://BUCKET/PATH and file:///PATH"
        ) from error
    return store, path.rstrip("/")


def make_parents(store: Any, path: str) -> None:
    """Makes the folder of a file where the store has folders; object stores have none."""
    if store.type_name == "local":
        store.create_dir(str(PurePosixPath(path).parent), recursive=True)


def shown(uri: str) -> str:
    """The URI without its user, password and query, which may hold credentials."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def one_line(error: Exception) -> str:
    """A library's message without its line breaks."""
    return " ".join(str(error).split())
