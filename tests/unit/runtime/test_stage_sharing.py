"""Runs that need the same stage at once: one does it, the others wait and take it."""

import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from dsfedmed_ray.errors import InterruptedRunError, RunDirectoryError
from dsfedmed_ray.runtime import stage_store
from dsfedmed_ray.runtime.stage_store import StageStore


def _take_or_run(root: Path) -> None:
    store = StageStore(root / "store")
    with store.alone("stage-1", waiting=lambda: None):
        if store.find("stage-1") is None:
            with store.publishing("stage-1") as folder:
                with (root / "ran").open("a") as count:
                    count.write("x")
                time.sleep(0.3)
                (folder / "result").write_text("done")


def _hold_and_die(root: Path) -> None:
    with StageStore(root / "store").alone("stage-1", waiting=lambda: None):
        (root / "held").touch()
        time.sleep(60)


@pytest.fixture(autouse=True)
def _quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_store, "POLL_SECONDS", 0.01)


def test_processes_that_start_together_run_a_stage_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_take_or_run, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert (tmp_path / "ran").read_text() == "x"
    assert (tmp_path / "store" / "stage-1" / "result").read_text() == "done"


def test_threads_of_one_process_run_a_stage_once(tmp_path: Path) -> None:
    threads = [threading.Thread(target=_take_or_run, args=(tmp_path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (tmp_path / "ran").read_text() == "x"


def test_other_keys_do_not_wait(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    with (
        store.alone("stage-1", waiting=lambda: pytest.fail("nobody holds it")),
        store.alone("stage-2", waiting=lambda: pytest.fail("nobody holds it")),
    ):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_hold_and_die, args=(tmp_path,))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    process.kill()
    process.join(30)
    with StageStore(tmp_path / "store").alone("stage-1", waiting=lambda: time.sleep(0.01)):
        pass


def test_a_waiting_run_can_give_up(tmp_path: Path) -> None:
    store = StageStore(tmp_path)

    def give_up() -> None:
        raise InterruptedRunError(2, "go on with resume=true")

    with (
        store.alone("stage-1", waiting=give_up),
        pytest.raises(InterruptedRunError),
        store.alone("stage-1", waiting=give_up),
    ):
        pass


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with (
        pytest.raises(RunDirectoryError, match=r"cannot write the stage store .*store\.dir=PATH"),
        StageStore(tmp_path / "store").alone("stage-1", waiting=lambda: None),
    ):
        pass
