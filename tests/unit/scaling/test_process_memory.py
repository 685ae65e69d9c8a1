"""Memory by process, from a kernel's files made by hand."""

import os
from pathlib import Path

from dsfedmed_ray.scaling.process_memory import memory_now


def process(root: Path, number: int, parent: int, title: str, peak: int, share: int) -> None:
    folder = root / str(number)
    folder.mkdir()
    (folder / "stat").write_text(f"{number} (a) b) S {parent} 1 1")
    (folder / "cmdline").write_text(title)
    (folder / "status").write_text(f"Name:\ta\nVmHWM:\t  {peak} kB\n")
    (folder / "smaps_rollup").write_text(f"55-7f\nRss: 1 kB\nPss:  {share} kB\nPss_Anon: 1 kB\n")


def test_driver_and_largest_worker_below_it(tmp_path: Path) -> None:
    """The kernel counts in units of 1024 bytes; workers stand below the raylet, others do not."""
    driver = os.getpid()
    process(tmp_path, driver, 1, "dsfedmed", 100, 80)
    process(tmp_path, 4_000_001, driver, "raylet", 900, 900)
    process(tmp_path, 4_000_002, 4_000_001, "ray::ClientWorker.fit_chunk", 30, 25)
    process(tmp_path, 4_000_003, 4_000_001, "ray::ClientWorker", 40, 20)
    process(tmp_path, 4_000_004, 1, "ray::ClientWorker", 700, 700)
    memory = memory_now(tmp_path)
    assert memory.driver_peak_rss_bytes == 100 * 1024
    assert memory.driver_pss_bytes == 80 * 1024
    assert memory.worker_peak_rss_bytes == 40 * 1024
    assert memory.worker_pss_bytes == 25 * 1024


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    memory = memory_now(tmp_path / "nothing")
    assert memory.driver_peak_rss_bytes is None
    assert memory.worker_pss_bytes is None


def test_this_process_holds_memory() -> None:
    memory = memory_now()
    assert memory.driver_peak_rss_bytes is not None
    assert memory.driver_pss_bytes is not None
    assert memory.driver_peak_rss_bytes >= memory.driver_pss_bytes > 2**20
