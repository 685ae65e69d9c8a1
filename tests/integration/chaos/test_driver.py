"""A driver that is killed or asked to stop goes on to the same bytes."""

import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.run_directory import read_json_lines

pytestmark = pytest.mark.chaos

Overrides = Callable[..., list[str]]
RunHere = Callable[..., Any]
Driver = Callable[[Sequence[str]], AbstractContextManager["subprocess.Popen[str]"]]
ReadUntil = Callable[["subprocess.Popen[str]", str], None]

SERIAL = ("runtime.clients=serial",)
POOL = ("runtime.clients=pool", "runtime.num_workers=2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "placement"),
    [
        (1, SERIAL),
        pytest.param(3, POOL, marks=(pytest.mark.ray, pytest.mark.long)),
    ],
)
def test_a_killed_driver_goes_on_to_the_same_bytes(
    seed: int,
    placement: Sequence[str],
    undisturbed: Any,
    tmp_path: Path,
    overrides: Overrides,
    driver: Driver,
    outcome_of: Callable[[Path], Any],
) -> None:
    """Killed twice, after lines and times that the seed draws; resumed by the command line.

    A whole run says about twenty lines; one that goes on, fewer.
    """
    draw = random.Random(seed)
    arguments = overrides(tmp_path, *placement, "resume=true")
    for most in (18, 4):
        number, seconds = draw.randint(1, most), draw.uniform(0.0, 0.5)
        with driver(arguments) as process:
            assert process.stderr is not None
            lines = list(itertools.islice(process.stderr, number))
            time.sleep(seconds)
            process.kill()
            assert process.wait() in (-signal.SIGKILL, 0)
        print(f"killed {seconds:.3f} s after {lines[-1]!r}")  # shown where the test fails
    with driver(arguments) as process:
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    assert outcome_of(tmp_path) == undisturbed


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("placement", "stage", "line", "number", "group", "code"),
    [
        (POOL, "train_federated", "round 1/3", signal.SIGINT, True, 130),
        (SERIAL, "tune_generators", "tune generators  client 1/3", signal.SIGINT, True, 130),
        (POOL, "distill_mutually", "distill mutually  epoch 1/2", signal.SIGTERM, False, 143),
    ],
    ids=["Ctrl-C in stage 3", "Ctrl-C in stage 1", "SIGTERM in stage 5"],
)
def test_a_signal_saves_and_says_how_to_go_on(
    placement: Sequence[str],
    stage: str,
    line: str,
    number: int,
    group: bool,
    code: int,
    undisturbed: Any,
    before: Callable[[str], Path],
    overrides: Overrides,
    driver: Driver,
    read_until: ReadUntil,
    run_here: RunHere,
) -> None:
    """A terminal sends SIGINT to the whole group: the workers must not die of it either."""
    folder = before(stage)
    with driver(overrides(folder, *placement)) as process:
        read_until(process, line)
        (os.killpg if group else os.kill)(process.pid, number)
        said = process.communicate(timeout=120)[1]
        assert process.returncode == code, said
    last = said.strip().splitlines()[-1]
    assert f"interrupted by signal {number}; go on with: the same command, resume=true" in last
    assert f"run.dir={folder / 'run'}" in last
    assert "Traceback" not in said
    done = [each["stage"] for each in read_json_lines(folder / "run" / "rounds.jsonl")]
    assert 1 <= done.count(stage) <= 2 + (stage == "tune_generators")
    assert not (folder / "run" / "summary.json").exists()
    # The configuration that is kept must be the same, and so the rest runs in this process.
    config = folder / "run" / "config.yaml"
    config.write_text(config.read_text().replace("clients: pool", "clients: serial", 1))
    config.write_text(config.read_text().replace("num_workers: 2", "num_workers: null", 1))
    assert run_here(folder, "runtime.clients=serial", "resume=true") == undisturbed
