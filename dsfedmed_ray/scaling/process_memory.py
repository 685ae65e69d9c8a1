"""Memory of this process and of the client workers below it, as the Linux kernel counts it.

Resident memory counts a page in every process that maps it; the proportional share (PSS) divides a
page by the processes that do, so that shares of several processes may be added. The kernel keeps
the highest resident memory of a process, so no peak is missed between two looks.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

WORKER_TITLE = "ray::ClientWorker"
_KIB = 2**10


@dataclass(frozen=True, kw_only=True)
class ProcessMemory:
    """Memory in bytes; of workers, that of the largest.

    Attributes:
        driver_peak_rss_bytes: highest resident memory of this process so far.
        driver_pss_bytes: its proportional share.
        worker_peak_rss_bytes: highest resident memory of a client worker so far.
        worker_pss_bytes: a client worker's proportional share.

    None stands where the system does not say, or no worker runs on this machine.
    """

    driver_peak_rss_bytes: int | None
    driver_pss_bytes: int | None
    worker_peak_rss_bytes: int | None
    worker_pss_bytes: int | None


def memory_now(processes: Path = Path("/proc")) -> ProcessMemory:
    """What the driver, this process, and its workers hold.

    Args:
        processes: the kernel's folder of processes.
    """
    driver = processes / str(os.getpid())
    workers = [
        folder
        for folder in _descendants(processes, os.getpid())
        if _text(folder / "cmdline").startswith(WORKER_TITLE)
    ]
    return ProcessMemory(
        driver_peak_rss_bytes=_peak_rss(driver),
        driver_pss_bytes=_pss(driver),
        worker_peak_rss_bytes=largest(_peak_rss(worker) for worker in workers),
        worker_pss_bytes=largest(_pss(worker) for worker in workers),
    )


def largest(values: Iterable[int | None]) -> int | None:
    """The largest number; None where there is none."""
    return max((value for value in values if value is not None), default=None)


def _descendants(processes: Path, ancestor: int) -> list[Path]:
    children: dict[int, list[int]] = {}
    for folder in processes.glob("[0-9]*"):
        # After the last bracket of the name stand the state and the parent's number.
        fields = _text(folder / "stat").rpartition(")")[2].split()
        if len(fields) > 1:
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, waiting = [], [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += [processes / str(number) for number in below]
        waiting += below
    return found


def _peak_rss(folder: Path) -> int | None:
    return _kib(_text(folder / "status"), "VmHWM:")


def _pss(folder: Path) -> int | None:
    return _kib(_text(folder / "smaps_rollup"), "Pss:")


def _kib(text: str, name: str) -> int | None:
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * _KIB
    return None


def _text(path: Path) -> str:
    """A kernel file's text, empty where the process has ended or the system has no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
