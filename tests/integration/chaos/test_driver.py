"""A driver that is killed or asked to stop goes on to the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.run_directory import read_json_lines

pytestmark = pytest.mark.chaos

Overrides = Callable[..., list[str]]
RunHere = Callable[..., Any]


@contextmanager
def driver(arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """``dsfedmed run`` in a process group of its own, as a terminal starts it."""
    command = [sys.executable, "-m", "dsfedmed_ray.cli", "run", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def read_until(process: "subprocess.Popen[str]", text: str) -> None:
    """Reads the driver's lines until one holds a text."""
    assert process.stderr is not None
    read = []
    for line in process.stderr:
        read.append(line)
        if text in line:
            return
    pytest.fail(f"the driver ended without {text!r}:\n{''.join(read)}")


def test_a_killed_driver_goes_on_to_the_same_bytes(
    undisturbed: Any, before: Callable[[str], Path], overrides: Overrides, run_here: RunHere
) -> None:
    """Killed in the rounds, then in adaptation or distillation, at a moment drawn each time."""
    folder = before("train_federated")
    moment = random.Random(os.getpid())
    arguments = overrides(folder, "runtime.clients=serial")
    for line in ("round 1/3", "adapt foundation  epoch 1/2"):
        with driver([*arguments, "resume=true"]) as process:
            read_until(process, line)
            time.sleep(moment.uniform(0.0, 0.5))
            process.kill()
            assert process.wait() == -signal.SIGKILL
    assert run_here(folder, "runtime.clients=serial", "resume=true") == undisturbed


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "group", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_saves_and_says_how_to_go_on(
    number: int,
    group: bool,
    code: int,
    undisturbed: Any,
    before: Callable[[str], Path],
    overrides: Overrides,
    run_here: RunHere,
) -> None:
    """A terminal sends SIGINT to the whole group: the workers must not die of it either."""
    folder = before("train_federated")
    arguments = overrides(folder, "runtime.clients=pool", "runtime.num_workers=2")
    with driver(arguments) as process:
        read_until(process, "round 1/3")
        (os.killpg if group else os.kill)(process.pid, number)
        said = process.communicate(timeout=120)[1]
        assert process.returncode == code, said
    last = said.strip().splitlines()[-1]
    assert f"interrupted by signal {number}; go on with: the same command, resume=true" in last
    assert f"run.dir={folder / 'run'}" in last
    assert "Traceback" not in said
    done = list(read_json_lines(folder / "run" / "rounds.jsonl"))
    assert 1 <= sum(line["stage"] == "train_federated" for line in done) < 3
    # The configuration that is kept must be the same, and so the rest runs in this process.
    config = folder / "run" / "config.yaml"
    config.write_text(config.read_text().replace("clients: pool", "clients: serial", 1))
    config.write_text(config.read_text().replace("num_workers: 2", "num_workers: null", 1))
    assert run_here(folder, "runtime.clients=serial", "resume=true") == undisturbed
