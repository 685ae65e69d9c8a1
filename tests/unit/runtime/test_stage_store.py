"""What a stage depends on, and publishing it whole."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from dsfedmed_ray.errors import CheckpointError, RunDirectoryError
from dsfedmed_ray.runtime.stage_store import (
    StageStore,
    code_fingerprint,
    described,
    stage_key,
)


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    sizes: tuple[int, ...] = (1, 2)
    folder: Path | None = None


@dataclass(frozen=True)
class OtherInner:
    rate: float = 0.1


def key(**settings: object) -> str:
    return stage_key("train", settings, ["earlier-0"])


def test_settings_are_described_by_class_and_field() -> None:
    assert described(Outer(folder=Path("a/b"))) == {
        "type": "Outer",
        "inner": {"type": "Inner", "rate": 0.1},
        "sizes": [1, 2],
        "folder": "a/b",
    }
    with pytest.raises(TypeError, match="plain configuration only, got set"):
        described({"sizes": {1, 2}})


def test_the_key_is_readable_and_stable() -> None:
    assert key(schedule=Outer()) == key(schedule=Outer())
    assert key(a=1, b=2) == key(b=2, a=1)
    stage, _, digest = key(schedule=Outer()).partition("-")
    assert stage == "train"
    assert len(digest) == 16


def test_the_key_changes_with_everything_it_depends_on() -> None:
    keys = [
        key(schedule=Outer()),
        key(schedule=Outer(inner=Inner(rate=0.2))),
        key(schedule=Outer(sizes=(2, 1))),
        key(schedule=Inner()),
        key(schedule=OtherInner()),
        key(schedule=Outer(), seed=1),
        stage_key("tune", {"schedule": Outer()}, ["earlier-0"]),
        stage_key("train", {"schedule": Outer()}, ["earlier-1"]),
        stage_key("train", {"schedule": Outer()}, []),
        stage_key("train", {"schedule": Outer()}, ["earlier-0", "earlier-1"]),
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_changes_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(a=1)
    monkeypatch.setattr("dsfedmed_ray.runtime.stage_store.code_fingerprint", lambda: "other")
    assert key(a=1) != before
    assert len(code_fingerprint()) == 16


def test_a_stage_appears_when_its_block_ends(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "store")
    assert store.find("train-1") is None
    with store.publishing("train-1") as folder:
        (folder / "model").write_text("whole")
        assert store.find("train-1") is None
    found = store.find("train-1")
    assert found is not None
    assert (found / "model").read_text() == "whole"
    assert [path.name for path in store.root.iterdir()] == ["train-1"]


def test_a_block_that_raises_publishes_nothing(tmp_path: Path) -> None:
    store = StageStore(tmp_path)

    def fail() -> None:
        with store.publishing("train-1") as folder:
            (folder / "model").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_publish_at_once_the_first_stays(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    with store.publishing("train-1") as late, store.publishing("train-1") as early:
        (late / "model").write_text("late")
        (early / "model").write_text("early")
    found = store.find("train-1")
    assert found is not None
    assert (found / "model").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["train-1"]


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = StageStore(tmp_path / "file")
    message = r"cannot write the stage store .*file: .*; free space or choose .* store\.dir=PATH"
    with pytest.raises(RunDirectoryError, match=message), store.publishing("train-1"):
        pass


def test_an_error_of_something_else_keeps_its_name(tmp_path: Path) -> None:
    """A file of the data that is gone is no reason to choose another store."""
    store = StageStore(tmp_path / "store")
    with pytest.raises(FileNotFoundError, match="image_07"), store.publishing("train-1"):
        (tmp_path / "image_07.png").read_bytes()
    with pytest.raises(ConnectionResetError), store.publishing("train-1"):
        raise ConnectionResetError(104, "Connection reset by peer")
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError("I/O error (is the disk full?)")]
)
def test_a_full_disk_is_about_the_store(error: OSError, tmp_path: Path) -> None:
    message = r"cannot write the stage store .*(No space left|I/O error).*; free space or"
    with pytest.raises(RunDirectoryError, match=message), StageStore(tmp_path).publishing("a-1"):
        raise error


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    """Of the key that is entered and of others, but not while somebody is at them."""
    store = StageStore(tmp_path)
    for key in ("train-1", "tune-2", "adapt-3"):
        (tmp_path / f".{key}.0123abcd" / "half").mkdir(parents=True)
    with store.alone("adapt-3", waiting=lambda: None):
        assert not (tmp_path / ".adapt-3.0123abcd").exists()
        with store.publishing("adapt-3"):
            (at_work,) = tmp_path.glob(".adapt-3.*")
            with store.alone("train-1", waiting=lambda: None):
                assert at_work.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".locks", "adapt-3"]


def finish(store: StageStore, key: str, content: str) -> None:
    with store.publishing(key) as folder:
        (folder / "model").write_text(content)


def taken(store: StageStore, key: str) -> str | None:
    """What a run finds on entering a stage."""
    with store.alone(key, waiting=lambda: None):
        found = store.find(key)
    return None if found is None else (found / "model").read_text()


def test_a_stage_goes_to_the_remote_store_and_comes_from_there(tmp_path: Path) -> None:
    """A machine that has neither looks there when it enters the stage, not before."""
    remote = f"file://{tmp_path}/remote"
    finish(StageStore(tmp_path / "a", remote), "train-1", "whole")
    assert (tmp_path / "remote/train-1/manifest.json").exists()
    other = StageStore(tmp_path / "b", remote)
    assert other.find("train-1") is None
    assert taken(other, "train-1") == "whole"
    assert taken(other, "train-2") is None
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [".locks", "train-1"]


def test_what_was_finished_without_a_remote_store_is_sent_when_it_is_found(tmp_path: Path) -> None:
    finish(StageStore(tmp_path / "a"), "train-1", "whole")
    remote = f"file://{tmp_path}/remote"
    assert StageStore(tmp_path / "a", remote).find("train-1") is not None
    assert taken(StageStore(tmp_path / "b", remote), "train-1") == "whole"


def test_what_the_remote_store_has_is_not_replaced(tmp_path: Path) -> None:
    """Two machines did the same stage: the seconds in its lines differ, the first ones stay."""
    remote = f"file://{tmp_path}/remote"
    finish(StageStore(tmp_path / "a", remote), "train-1", "first")
    finish(StageStore(tmp_path / "b", remote), "train-1", "second")
    assert (tmp_path / "remote/train-1/model").read_text() == "first"
    assert (tmp_path / "b/train-1/model").read_text() == "second"


def test_a_damaged_stage_of_the_remote_store_is_refused(tmp_path: Path) -> None:
    remote = f"file://{tmp_path}/remote"
    finish(StageStore(tmp_path / "a", remote), "train-1", "whole")
    (tmp_path / "remote/train-1/model").write_text("hole")
    message = r"model at .*remote/train-1 is damaged: .*, or remove train-1 from store\.remote"
    with pytest.raises(CheckpointError, match=message):
        taken(StageStore(tmp_path / "b", remote), "train-1")
    assert not (tmp_path / "b/train-1").exists()
