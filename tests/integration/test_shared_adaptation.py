"""Stage 4 on two workers of Ray Train against one process: the same losses, the same model."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.data.synthetic_samples import to_table, write_synthetic
from dsfedmed_ray.errors import ConfigurationError, InterruptedRunError, ResourceError
from dsfedmed_ray.learning.foundation_adaptation import Adaptation
from dsfedmed_ray.methods.dsfedmed.adapt_foundation import adapt_foundation
from dsfedmed_ray.methods.method import FOUNDATION_FILE
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.litemedsam import LiteMedSAMConfig
from dsfedmed_ray.models.segmenter import State
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord, SyntheticSample
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.runtime.engine import RuntimeConfig, Threads, open_engine
from dsfedmed_ray.runtime.shared_adaptation import check_outside_of_trials

POOL = 9
"""With batches of four the last one has a single sample, and one of two workers has none of it."""
CONFIG = Adaptation(epochs=3, batch_size=4, learning_rate=1e-3)
ONE = RuntimeConfig(clients="serial", threads=Threads(foundation=1))
TWO = replace(ONE, clients="pool", num_workers=1, foundation_workers=2)

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@dataclass
class Adapted:
    """What stage 4 gave."""

    state: State
    losses: list[float]


class StopAfter(SilentProgress):
    """Asks for a stop when an epoch has ended."""

    def __init__(self, epoch: int, stop: StopRequest) -> None:
        self._epoch = epoch
        self._stop = stop

    def advance(self, record: ProgressRecord) -> None:
        if record.index == self._epoch:
            self._stop.signal_number = 2


class Killer(SilentProgress):
    """Kills a worker of Ray Train after the first epoch, once."""

    def __init__(self) -> None:
        self.killed: list[int] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, record: ProgressRecord) -> None:
        if not self.killed:
            self.killed = [p for p in processes_below(os.getpid()) if is_train_worker(p)][:1]
            os.kill(self.killed[0], signal.SIGKILL)


def processes_below(ancestor: int) -> list[int]:
    """All processes that a process started, and those that these started."""
    tasks = Path(f"/proc/{ancestor}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return children + [below for child in children for below in processes_below(child)]


def is_train_worker(process: int) -> bool:
    return Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::RayTrainWorker")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory, toy_split: SplitFederation) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    pairs = [pair for site in toy_split.seen_sites for pair in toy_split.samples(site, "train")]
    samples = [
        SyntheticSample(
            sample_id=f"{number:02d}",
            image=pair.image,
            mask=pair.mask,
            client="a",
            mask_origin="client",
            style_origin="client",
            seed=0,
        )
        for number, pair in enumerate(pairs[:POOL])
    ]
    assert len(samples) == POOL
    write_synthetic(to_table(samples), folder / "pool.parquet")
    return folder


Adapt = Callable[..., Adapted]


@pytest.fixture(scope="module")
def adapt(
    toy_split: SplitFederation,
    synthetic: Path,
    open_context: Callable[..., AbstractContextManager[RunContext]],
) -> Adapt:
    def adapted(folder: Path, runtime: RuntimeConfig, **given: Any) -> Adapted:
        config = replace(CONFIG, num_workers=runtime.foundation_workers)
        result = folder / "result"
        result.mkdir(exist_ok=True)
        foundation = LiteMedSAMConfig(input_size=64, weights="random")
        with open_context(folder, runtime, toy_split, foundation=foundation, **given) as context:
            adapt_foundation(context, synthetic, config, result)
            lines = list(read_json_lines(context.directory.rounds))
        return Adapted(load_file(result / FOUNDATION_FILE), [x["values"]["loss"] for x in lines])

    return adapted


@pytest.fixture(scope="module")
def alone(adapt: Adapt, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    return adapt(tmp_path_factory.mktemp("alone"), ONE)


def assert_same(shared: Adapted, alone: Adapted) -> None:
    assert len(shared.losses) == CONFIG.epochs
    assert shared.losses == pytest.approx(alone.losses, rel=1e-4)
    assert shared.state.keys() == alone.state.keys()
    for name, value in alone.state.items():
        torch.testing.assert_close(shared.state[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.usefixtures("four_cpus")
def test_two_workers_learn_what_one_learns(adapt: Adapt, alone: Adapted, tmp_path: Path) -> None:
    """Nine steps at a rate of 1e-3 move weights by up to 9e-3; the two differ by rounding alone."""
    assert alone.losses[-1] < alone.losses[0]
    assert_same(adapt(tmp_path, TWO), alone)


@pytest.mark.long
@pytest.mark.usefixtures("four_cpus")
def test_two_workers_stop_and_go_on(adapt: Adapt, alone: Adapted, tmp_path: Path) -> None:
    stop = StopRequest()
    with pytest.raises(InterruptedRunError):
        adapt(tmp_path, TWO, stop=stop, progress=StopAfter(0, stop))
    assert_same(adapt(tmp_path, TWO), alone)


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.usefixtures("four_cpus")
def test_a_worker_dies_and_new_ones_go_on(adapt: Adapt, alone: Adapted, tmp_path: Path) -> None:
    progress = Killer()
    assert_same(adapt(tmp_path, TWO, progress=progress), alone)
    assert len(progress.killed) == 1
    assert any("goes on from the last checkpoint" in note for note in progress.notes)


@pytest.mark.usefixtures("four_cpus")
def test_more_workers_than_there_is_room_for() -> None:
    runtime = RuntimeConfig(clients="pool", num_workers=1, foundation_workers=8)
    message = r"the workers of stage 4 ask for 8 CPU in all .* or foundation.num_workers"
    with pytest.raises(ResourceError, match=message), open_engine(runtime, 2, print):
        pass


@pytest.mark.usefixtures("four_cpus")
def test_a_trial_has_one_worker() -> None:
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group([{"CPU": 1}])
    strategy = PlacementGroupSchedulingStrategy(
        group, placement_group_capture_child_tasks=True, placement_group_bundle_index=0
    )
    try:
        checked = ray.remote(check_outside_of_trials).options(scheduling_strategy=strategy)
        with pytest.raises(ConfigurationError, match=r"foundation.num_workers=1 in a study"):
            ray.get(checked.remote(2))
    finally:
        remove_placement_group(group)
