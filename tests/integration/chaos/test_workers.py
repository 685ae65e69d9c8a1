"""Whichever process of a run is killed, it ends with the bytes of the undisturbed one."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord

pytestmark = pytest.mark.chaos


def ray_processes(ancestor: int) -> dict[int, str]:
    """Titles of the Ray workers below a process, by process id.

    Ray names a worker after what it does: ``ray::ClientWorker.fit_chunk``.
    """
    found, waiting = {}, [ancestor]
    while waiting:
        process = waiting.pop()
        try:
            title = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            children = [
                (task / "children").read_text().split()
                for task in Path(f"/proc/{process}/task").iterdir()
            ]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if title.startswith("ray::"):
            found[process] = title.strip()
        waiting += [int(child) for some in children for child in some]
    return found


class Saboteur(SilentProgress):
    """Kills processes in the middle of planned units.

    Args:
        plan: by stage and unit, the title of the processes and how many must be at it at once.
    """

    def __init__(self, plan: dict[tuple[str, int], tuple[str, int]]) -> None:
        self.plan = dict(plan)
        self.num_killed = 0
        self.notes: list[str] = []
        self._now = ("", 0)
        self._end = threading.Event()

    def stage(self, name: str, total: int) -> AbstractContextManager[object]:
        self._now = (name, 0)
        return nullcontext()

    def advance(self, record: ProgressRecord) -> None:
        self._now = (record.stage, record.index + 1)

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.002):
            now = self._now
            if now not in self.plan:
                continue
            title, count = self.plan[now]
            found = [p for p, name in ray_processes(os.getpid()).items() if title in name]
            if len(found) >= count:
                del self.plan[now]
                for process in found[:count]:
                    os.kill(process, signal.SIGKILL)
                    self.num_killed += 1


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    ("stage", "plan"),
    [
        ("synthesize", {("synthesize", 0): ("MapWorker", 1)}),
        (
            "train_federated",
            {
                ("train_federated", 0): ("ClientWorker.fit_chunk", 1),
                ("train_federated", 1): ("ClientWorker.fit_chunk", 2),
                ("train_federated", 2): ("ClientWorker.fit_chunk", 1),
            },
        ),
        (
            "adapt_foundation",
            {
                ("adapt_foundation", 1): ("FoundationServer.adapt_epoch", 1),
                ("distill_mutually", 0): ("FoundationServer", 1),
                ("distill_mutually", 1): ("FoundationServer.", 1),
            },
        ),
    ],
    ids=["a generator", "clients, one and two at once", "the foundation model, in both stages"],
)
def test_killed_workers_change_no_byte(
    stage: str,
    plan: dict[tuple[str, int], tuple[str, int]],
    undisturbed: Any,
    before: Callable[[str], Path],
    run_here: Callable[..., Any],
) -> None:
    folder = before(stage)
    saboteur = Saboteur(plan)
    with saboteur.at_work():
        result = run_here(
            folder,
            "runtime.clients=pool",
            "runtime.num_workers=2",
            "runtime.chunk_size=1",
            progress=saboteur,
        )
    assert saboteur.num_killed == sum(count for _, count in plan.values()), saboteur.notes
    assert any("replaced" in n or "started again" in n for n in saboteur.notes)
    assert result == undisturbed
