"""Whole files or none, and a run directory that cannot be made."""

from pathlib import Path

import pytest

from dsfedmed_ray.cli import main
from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.run_directory import copy_atomically, read_json_lines, write_json


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text("no folder")
    return path


def test_a_folder_below_a_file_is_refused(file: Path) -> None:
    """Nobody can make one, whatever their rights."""
    for write in (lambda path: write_json(path, {}), lambda path: copy_atomically(file, path)):
        with pytest.raises(
            RunDirectoryError, match=r"cannot write .*: Not a directory; .*run\.dir"
        ):
            write(file / "run" / "summary.json")
    assert file.read_text() == "no folder"


def test_a_run_below_a_file_ends_with_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["experiment=smoke", "size=toy", "method=fedavg", "runtime.clients=serial"]
    assert main(["run", *tiny, f"run.dir={file / 'run'}", f"store.dir={tmp_path / 'store'}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"dsfedmed: error: cannot write {file / 'run' / 'config.yaml'}: Not a ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(RunDirectoryError, match=r"cannot write .*summary\.json: No such file"):
        copy_atomically(tmp_path / "nowhere", path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_line_that_was_being_written_is_no_line(tmp_path: Path) -> None:
    """The process died after 7 of its bytes."""
    path = tmp_path / "rounds.jsonl"
    path.write_text('{"index": 0}\n{"index')
    assert list(read_json_lines(path)) == [{"index": 0}]
