"""Full disks and damaged checkpoints: a clear word, and the same bytes afterwards."""

import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord

pytestmark = pytest.mark.chaos


class FullDisk(SilentProgress):
    """From one unit's end on, nothing larger than a few bytes can be written."""

    def __init__(self, after: tuple[str, int], patch: pytest.MonkeyPatch) -> None:
        self._after, self._patch = after, patch

    def advance(self, record: ProgressRecord) -> None:
        if (record.stage, record.index) == self._after:
            self._patch.setattr("dsfedmed_ray.run_directory.os.fsync", no_space)


def no_space(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_keeps_the_last_checkpoint(
    undisturbed: Any, before: Callable[[str], Path], run_here: Callable[..., Any]
) -> None:
    folder = before("train_federated")
    with pytest.MonkeyPatch.context() as patch:
        progress = FullDisk(("train_federated", 1), patch)
        with pytest.raises(RunDirectoryError, match=r"cannot write .*unit-000001\.pt: No space"):
            run_here(folder, "runtime.clients=serial", progress=progress)
    checkpoints = folder / "run" / "checkpoints" / "train_federated"
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "unit-000000.json",
        "unit-000000.pt",
    ]
    assert run_here(folder, "runtime.clients=serial", "resume=true") == undisturbed


def test_no_room_for_larger_files_ends_with_one_line(
    undisturbed: Any,
    before: Callable[[str], Path],
    overrides: Callable[..., list[str]],
    driver: Any,
    read_until: Any,
    run_here: Callable[..., Any],
) -> None:
    """The operating system itself refuses: from round 1 on no file may have more than 3,000 bytes.

    A checkpoint has more.
    """
    folder = before("train_federated")
    with driver(overrides(folder, "runtime.clients=serial")) as process:
        read_until(process, "round 1/3")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (3000, 3000))
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 2, said
    assert "Traceback" not in said
    reason = r"(File too large|not all of it could be written \(is the disk full\?\))"
    assert re.search(rf"^dsfedmed: error: cannot write .*: {reason}; free space", said, re.M)
    for path in (folder / "run" / "checkpoints" / "train_federated").iterdir():
        assert path.suffix in (".pt", ".json")
        assert path.with_suffix(".json").exists()
    assert run_here(folder, "runtime.clients=serial", "resume=true") == undisturbed


class Losing(SilentProgress):
    """Moves the run directory away in the middle of round 2, and may put a file in its place."""

    def __init__(self, run: Path, put_file: bool) -> None:
        self._run, self._put_file = run, put_file

    def advance(self, record: ProgressRecord) -> None:
        if (record.stage, record.index) == ("train_federated", 1):
            self._run.rename(self._run.with_name("elsewhere"))
            if self._put_file:
                self._run.touch()


@pytest.mark.parametrize("put_file", [False, True])
def test_a_run_directory_that_goes_away_ends_the_run(
    put_file: bool,
    undisturbed: Any,
    before: Callable[[str], Path],
    run_here: Callable[..., Any],
) -> None:
    """What is moved back is whole up to its last checkpoint."""
    folder = before("train_federated")
    run = folder / "run"
    with pytest.raises(RunDirectoryError, match=r"cannot write .*: (No such file|Not a|File ex)"):
        run_here(folder, "runtime.clients=serial", progress=Losing(run, put_file))
    if put_file:
        run.unlink()
    else:
        shutil.rmtree(run)
    run.with_name("elsewhere").rename(run)
    names = {path.name for path in (run / "checkpoints" / "train_federated").iterdir()}
    assert names == {"unit-000000.pt", "unit-000000.json"}
    assert run_here(folder, "runtime.clients=serial", "resume=true") == undisturbed


def test_a_truncated_checkpoint_is_passed_over(
    undisturbed: Any, before: Callable[[str], Path], run_here: Callable[..., Any], notes: Any
) -> None:
    folder = before("train_federated")

    class CutError(Exception):
        pass

    class Cutting(SilentProgress):
        def advance(self, record: ProgressRecord) -> None:
            if (record.stage, record.index) == ("train_federated", 2):
                raise CutError

    with pytest.raises(CutError):
        run_here(folder, "runtime.clients=serial", progress=Cutting())
    newest = folder / "run" / "checkpoints" / "train_federated" / "unit-000001.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    result = run_here(folder, "runtime.clients=serial", "resume=true", progress=notes)
    assert any("unit-000001.pt is damaged and was passed over" in n for n in notes.notes)
    assert result == undisturbed
