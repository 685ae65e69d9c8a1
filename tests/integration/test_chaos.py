"""Whatever dies, whenever it dies, the run ends with the bytes of the undisturbed one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsfedmed_ray.configuration import build_experiment, compose
from dsfedmed_ray.data.synthetic_samples import read_synthetic
from dsfedmed_ray.errors import ClientFailureError, RunDirectoryError, TooFewRepliesError
from dsfedmed_ray.experiment import train
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.progress import Progress, SilentProgress
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.run_directory import RunDirectory, read_json_lines
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.failures import FailurePolicy

pytestmark = pytest.mark.chaos

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
]
STAGES = (
    "tune_generators",
    "synthesize",
    "train_federated",
    "adapt_foundation",
    "distill_mutually",
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
    """Without what is time, in an order that does not depend on who was first."""
    timeless = []
    for line in read_json_lines(path):
        line.pop("seconds", None)
        values = line.get("values", {})
        line["values"] = {k: v for k, v in values.items() if not k.endswith("_seconds")}
        timeless.append(json.dumps(line, sort_keys=True))
    return sorted(timeless)


def finished_stages(folder: Path) -> list[Path]:
    return [p for p in sorted((folder / "store").iterdir()) if p.name.startswith(STAGES)]


def overrides(folder: Path, *more: str) -> list[str]:
    return [*TINY, f"run.dir={folder / 'run'}", f"store.dir={folder / 'store'}", *more]


def run_here(folder: Path, *more: str, progress: Progress | None = None) -> Outcome:
    train(build_experiment(compose(overrides(folder, *more))), progress or SilentProgress())
    return outcome(folder)


@pytest.fixture(scope="module")
def undisturbed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_here(folder, "runtime.clients=serial")
    return folder


@pytest.fixture(scope="module")
def undisturbed(undisturbed_folder: Path) -> Outcome:
    result = outcome(undisturbed_folder)
    assert len(result.samples) == 6
    assert [len(finished_stages(undisturbed_folder)), len(result.files)] == [5, 7]
    return result


@pytest.fixture
def before(undisturbed_folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A folder where the stages before one are finished already."""

    def made(stage: str) -> Path:
        for path in finished_stages(undisturbed_folder):
            if STAGES.index(path.name.rpartition("-")[0]) < STAGES.index(stage):
                shutil.copytree(path, tmp_path / "store" / path.name)
        return tmp_path

    return made


# --- workers ---------------------------------------------------------------------------------


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
    undisturbed: Outcome,
    before: Callable[[str], Path],
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


# --- the driver ------------------------------------------------------------------------------


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
    undisturbed: Outcome, before: Callable[[str], Path]
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
    number: int, group: bool, code: int, undisturbed: Outcome, before: Callable[[str], Path]
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


# --- clients that hang -----------------------------------------------------------------------


@dataclass(frozen=True)
class HangingProgram:
    """Client ``k`` adds ``k + 1``; client 1 hangs in its first attempts."""

    marks: Path
    num_hangs: int

    def __call__(self) -> "HangingProgram":
        return self

    def client_name(self, client_id: int) -> str:
        return f"site_{client_id}"

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        hangs = len(list(self.marks.iterdir()))
        if client_id == 1 and hangs < self.num_hangs:
            (self.marks / f"hang_{hangs}").touch()
            time.sleep(600)
        return FitResult(
            state=FlatState(broadcast.values + client_id + 1, broadcast.counters),
            num_samples=1,
            metrics={},
            num_uplink_bytes=4,
        )


@pytest.mark.ray
@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    ("num_hangs", "policy", "expected"),
    [
        (1, {"on_client_error": "retry"}, 2.0),
        (1, {"on_client_error": "drop", "min_replies_fraction": 0.6}, 2.0),
        (9, {"on_client_error": "drop", "min_replies_fraction": 0.7}, TooFewRepliesError),
        (9, {"on_client_error": "stop"}, ClientFailureError),
    ],
    ids=["retry", "drop", "drop below the least share", "stop"],
)
def test_a_client_that_hangs(
    num_hangs: int, policy: dict[str, Any], expected: float | type[Exception], tmp_path: Path
) -> None:
    """Three clients add 1, 2 and 3: 2 on average, and without client 1 as well."""
    import ray

    from dsfedmed_ray.runtime.demand import Demand
    from dsfedmed_ray.runtime.placement import Placement
    from dsfedmed_ray.runtime.ray_pool import RayPool

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    notes: list[str] = []
    program = HangingProgram(tmp_path, num_hangs)
    pool = RayPool(
        program,
        num_workers=2,
        pinned=False,
        num_threads=1,
        placement=Placement("clients", [Demand(num_gpus=0.0)] * 2),
        chunk_size=1,
        policy=FailurePolicy(client_timeout_seconds=1.0, **policy),
        client_name=program.client_name,
        note=notes.append,
    )
    start = FlatState(np.zeros(1, np.float32), np.zeros(0, np.int64))
    try:
        if isinstance(expected, float):
            result = pool.fit_round(start, [0, 1, 2], round_index=0, total_weight=3)
            assert result.state.values.tolist() == [expected]
            dropped = [error.client_id for error in result.dropped]
            assert dropped == ([1] if policy["on_client_error"] == "drop" else [])
        else:
            with pytest.raises(expected, match=r"no reply within 1 s|2 of 3 clients replied"):
                pool.fit_round(start, [0, 1, 2], round_index=0, total_weight=3)
    finally:
        pool.close()
    assert any("was lost and replaced" in note for note in notes)


# --- disks -----------------------------------------------------------------------------------


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
    undisturbed: Outcome, before: Callable[[str], Path]
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


def test_a_truncated_checkpoint_is_passed_over(
    undisturbed: Outcome, before: Callable[[str], Path]
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
    saboteur = Saboteur({})
    result = run_here(folder, "runtime.clients=serial", "resume=true", progress=saboteur)
    assert any("unit-000001.pt is damaged and was passed over" in n for n in saboteur.notes)
    assert result == undisturbed
