"""A published folder comes back byte for byte, or not at all."""

import json
import socket
from pathlib import Path

import pytest

from dsfedmed_ray.errors import CheckpointError, ConfigurationError, RunDirectoryError
from dsfedmed_ray.runtime.publishing import MANIFEST_NAME, fetch, is_published, main, publish
from tests.conftest import BUCKET


@pytest.fixture(params=["file", "s3"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URI with ``{}`` for the path: a local folder, and a bucket on the loopback server."""
    if request.param == "file":
        return f"file://{tmp_path}/store/{{}}"
    server = request.getfixturevalue("s3_server")
    return f"s3://{BUCKET}/{tmp_path.name}/{{}}?endpoint_override={server}&scheme=http"


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """Two files, one of them in a subfolder and one byte longer than an upload chunk."""
    root = tmp_path / "run"
    (root / "models").mkdir(parents=True)
    (root / "summary.json").write_text('{"dice": 0.8}')
    (root / "models" / "lightweight.safetensors").write_bytes(b"w" * (8 * 2**20 + 1))
    return root


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_fetch_returns_what_was_published(
    store_uri: str, run_directory: Path, tmp_path: Path
) -> None:
    uri = store_uri.format("runs/a")
    assert not is_published(uri)
    publish(run_directory, uri)
    assert is_published(uri)
    fetch(uri, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(run_directory)


def test_other_content_replaces_what_was_published(
    store_uri: str, run_directory: Path, tmp_path: Path
) -> None:
    uri = store_uri.format("runs/b")
    publish(run_directory, uri)
    (run_directory / "summary.json").write_text('{"dice": 0.9}')
    publish(run_directory, uri)
    fetch(uri, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(run_directory)


def test_the_same_content_is_not_written_twice(run_directory: Path, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/store/run"
    publish(run_directory, uri)
    before = (tmp_path / "store/run/summary.json").stat().st_mtime_ns
    publish(run_directory, uri)
    assert (tmp_path / "store/run/summary.json").stat().st_mtime_ns == before


def test_a_missing_manifest_means_not_there(run_directory: Path, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/store/run"
    publish(run_directory, uri)
    (tmp_path / "store/run" / MANIFEST_NAME).unlink()
    assert not is_published(uri)
    with pytest.raises(CheckpointError, match=r"nothing is published at .*/store/run"):
        fetch(uri, tmp_path / "back")


def test_the_manifest_is_written_last(
    run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload of the last file by name, summary.json, fails; nothing counts as published."""
    from dsfedmed_ray.runtime import publishing

    upload = publishing._upload

    def full_at_the_summary(store: object, path: str, source: object) -> None:
        if path.endswith("summary.json"):
            raise OSError("no space left")
        upload(store, path, source)  # type: ignore[arg-type]

    monkeypatch.setattr(publishing, "_upload", full_at_the_summary)
    uri = f"file://{tmp_path}/store/run"
    with pytest.raises(RunDirectoryError, match="no space left; check that the bucket exists"):
        publish(run_directory, uri)
    assert (tmp_path / "store/run/models/lightweight.safetensors").exists()
    assert not is_published(uri)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b'{"dice": 0.9}', r"summary\.json at .* is damaged: 13 bytes with sha256 \w{12}"),
        (b"", r"summary\.json at .* is damaged: 0 bytes"),
        (None, r"summary\.json is missing at"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_left(
    run_directory: Path, tmp_path: Path, damage: bytes | None, message: str
) -> None:
    publish(run_directory, f"file://{tmp_path}/store/run")
    published = tmp_path / "store/run/summary.json"
    published.unlink() if damage is None else published.write_bytes(damage)
    with pytest.raises(CheckpointError, match=message):
        fetch(f"file://{tmp_path}/store/run", tmp_path / "fetched/back")
    assert list((tmp_path / "fetched").iterdir()) == []


@pytest.mark.parametrize("name", ["../escaped", "/absolute"])
def test_a_manifest_cannot_write_outside_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "store").mkdir()
    manifest = {"files": [{"name": name, "num_bytes": 0, "sha256": ""}]}
    (tmp_path / "store" / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="outside its own folder"):
        fetch(f"file://{tmp_path}/store", tmp_path / "back")


def test_a_damaged_manifest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest\.json at .* is damaged"):
        fetch(f"file://{tmp_path}", tmp_path / "back")


def test_fetch_does_not_overwrite(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="exists; fetch into a folder that does not"):
        fetch("file:///nowhere", tmp_path)


def test_an_empty_folder_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds no file to publish"):
        publish(tmp_path / "absent", f"file://{tmp_path}/store")


def test_an_unknown_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'ftp://host/run' is not the address of a store"):
        is_published("ftp://user:password@host/run?key=value")


def test_a_missing_bucket_is_named_without_credentials(run_directory: Path, s3_server: str) -> None:
    uri = f"s3://key:secret@absent/run?endpoint_override={s3_server}&scheme=http"
    with pytest.raises(RunDirectoryError, match=r"cannot publish .* to s3://absent/run") as caught:
        publish(run_directory, uri)
    assert "secret" not in str(caught.value)


def test_a_store_that_does_not_answer_is_named(s3_server: str) -> None:
    with socket.socket() as reserved:  # bound but not listening: connections are refused
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        uri = f"s3://{BUCKET}/run?endpoint_override={address}&scheme=http&region=us-east-1"
        with pytest.raises(CheckpointError, match=f"cannot read s3://{BUCKET}/run: .*connect"):
            is_published(uri)


def test_the_shell_command_goes_there_and_back(run_directory: Path, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/store/run"
    main(["publish", str(run_directory), uri])
    main(["fetch", uri, str(tmp_path / "back")])
    assert contents(tmp_path / "back") == contents(run_directory)


def test_the_shell_command_fails_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fetch", f"file://{tmp_path}/store", str(tmp_path / "back")])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("nothing is published at file://")
    assert message.count("\n") == 1
