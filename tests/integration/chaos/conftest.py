"""A tiny run of all stages, what must be equal of it, and runs that have done part of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsfedmed_ray.configuration import build_experiment, compose
from dsfedmed_ray.data.synthetic_samples import read_synthetic
from dsfedmed_ray.experiment import train
from dsfedmed_ray.progress import Progress, SilentProgress
from dsfedmed_ray.run_directory import RunDirectory, read_json_lines

TINY = [
    "experiment=smoke",
    "size=toy",
    "data.pairs_per_site=[6,5,6,5]",
    "schedule.rounds=3",
    "schedule.local_steps=20",
    "schedule.adaptation_epochs=2",
    "schedule.distillation_epochs=2",
    "schedule.quality_steps=0",
    "foundation.weights=random",
    "foundation.input_size=64",
    "lightweight.channels=[4,8]",
    "lightweight.num_res_units=0",
    "generator.steps=2",
    "generator.num_inference_steps=2",
    "generator.images_per_job=1",
    "runtime.threads.foundation=1",
    "method.control_rows=false",
]
STAGES = (
    "tune_generators",
    "synthesize",
    "train_federated",
    "adapt_foundation",
    "distill_mutually",
    "refine_federated",
)


@dataclass(frozen=True)
class Outcome:
    """What must be equal: every trained file, the synthetic set and every line but its seconds."""

    files: dict[str, bytes]
    samples: dict[str, bytes]
    rounds: list[str]
    transfers: list[str]


def outcome(folder: Path) -> Outcome:
    """Of a run in ``folder/run`` with its stages in ``folder/store``."""
    stages = {path.name.rpartition("-")[0]: path for path in finished_stages(folder)}
    files = {
        f"{stage}/{path.name}": path.read_bytes()
        for stage, root in stages.items()
        for path in root.glob("*.safetensors")
    }
    samples = (
        {
            sample.sample_id: sample.image.tobytes() + sample.mask.tobytes()
            for sample in read_synthetic(stages["synthesize"])
        }
        if "synthesize" in stages
        else {}
    )
    directory = RunDirectory(folder / "run")
    return Outcome(files, samples, *(lines(p) for p in (directory.rounds, directory.transfers)))


def lines(path: Path) -> list[str]:
    """Of the stages, without what is time, in an order that does not depend on who was first."""
    timeless = []
    for line in read_json_lines(path):
        if line["stage"] not in STAGES:
            continue
        line.pop("seconds", None)
        values = line.get("values", {})
        line["values"] = {k: v for k, v in values.items() if not k.endswith("_seconds")}
        timeless.append(json.dumps(line, sort_keys=True))
    return sorted(timeless)


def finished_stages(folder: Path) -> list[Path]:
    return [p for p in sorted((folder / "store").iterdir()) if p.name.startswith(STAGES)]


@pytest.fixture(scope="session")
def overrides() -> Callable[..., list[str]]:
    """Of the tiny run in a folder."""

    def made(folder: Path, *more: str) -> list[str]:
        return [*TINY, f"run.dir={folder / 'run'}", f"store.dir={folder / 'store'}", *more]

    return made


@pytest.fixture(scope="session")
def run_here(overrides: Callable[..., list[str]]) -> Callable[..., Outcome]:
    """Runs or resumes the tiny run in this process."""

    def run(folder: Path, *more: str, progress: Progress | None = None) -> Outcome:
        train(build_experiment(compose(overrides(folder, *more))), progress or SilentProgress())
        return outcome(folder)

    return run


@pytest.fixture(scope="session")
def undisturbed_folder(
    run_here: Callable[..., Outcome], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_here(folder, "runtime.clients=serial")
    return folder


@pytest.fixture(scope="session")
def undisturbed(undisturbed_folder: Path) -> Outcome:
    result = outcome(undisturbed_folder)
    assert len(result.samples) == 6
    assert [len(finished_stages(undisturbed_folder)), len(result.files)] == [6, 8]
    return result


@pytest.fixture
def outcome_of() -> Callable[[Path], Outcome]:
    """What a run of ``dsfedmed`` left in a folder."""
    return outcome


@contextmanager
def started(arguments: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """``dsfedmed run`` in a process group of its own, as a terminal starts it."""
    command = [sys.executable, "-m", "dsfedmed_ray.cli", "run", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def driver() -> Callable[[Sequence[str]], AbstractContextManager["subprocess.Popen[str]"]]:
    """Starts a driver; it is gone at the block's end."""
    return started


@pytest.fixture(scope="session")
def read_until() -> Callable[["subprocess.Popen[str]", str], None]:
    """Reads a driver's lines until one holds a text."""

    def read(process: "subprocess.Popen[str]", text: str) -> None:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if text in line:
                return
        pytest.fail(f"the driver ended without {text!r}:\n{''.join(lines)}")

    return read


@pytest.fixture
def before(undisturbed_folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A folder where the stages before one are finished already."""

    def made(stage: str) -> Path:
        for path in finished_stages(undisturbed_folder):
            if STAGES.index(path.name.rpartition("-")[0]) < STAGES.index(stage):
                shutil.copytree(path, tmp_path / "store" / path.name)
        return tmp_path

    return made


class Notes(SilentProgress):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def notes() -> Notes:
    """A progress that keeps what it is told."""
    return Notes()
