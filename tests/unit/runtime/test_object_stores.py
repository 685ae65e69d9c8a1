"""Addresses of object stores: what is refused, what lies below, what can be written."""

from pathlib import Path

import pytest

from dsfedmed_ray.errors import ConfigurationError, RunDirectoryError
from dsfedmed_ray.runtime.object_stores import below, check_address, check_writable
from tests.conftest import BUCKET


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/a?region=x", "gs://b/a", "file:///a"])
def test_addresses_that_are_allowed(uri: str) -> None:
    check_address("store.remote", uri)


@pytest.mark.parametrize("uri", ["runs/store", "s3:///path", "file:///", "ftp://host/path", ""])
def test_addresses_that_name_no_store(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^store\.remote is '.*'; allowed: s3://BUCKET"):
        check_address("store.remote", uri)


def test_credentials_are_refused_and_not_repeated() -> None:
    message = r"run\.publish holds a user or password before 's3://bucket/a', .* \(AWS_ACCESS"
    with pytest.raises(ConfigurationError, match=message) as caught:
        check_address("run.publish", "s3://key:secret@bucket/a")
    assert "secret" not in str(caught.value)


def test_below_keeps_the_query() -> None:
    assert below("s3://bucket/runs/?scheme=http", "a") == "s3://bucket/runs/a?scheme=http"
    assert below("s3://bucket", "a") == "s3://bucket/a"


def test_what_can_be_written_is_left_as_it_was(s3_server: str, tmp_path: Path) -> None:
    from pyarrow.fs import FileSelector, FileSystem

    check_writable(f"file://{tmp_path}/store")
    assert list((tmp_path / "store").iterdir()) == []
    uri = f"s3://{BUCKET}/writable?endpoint_override={s3_server}&scheme=http"
    check_writable(uri)
    store, path = FileSystem.from_uri(uri)
    assert store.get_file_info(FileSelector(path, allow_not_found=True, recursive=True)) == []


def test_what_cannot_be_written_is_named(s3_server: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for uri, shown in (
        (f"file://{tmp_path}/file", f"file://{tmp_path}/file"),
        (f"s3://absent/a?endpoint_override={s3_server}&scheme=http", "s3://absent/a"),
    ):
        with pytest.raises(RunDirectoryError, match=f"cannot write {shown}: .*; check that the"):
            check_writable(uri)
