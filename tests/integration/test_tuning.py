"""Studies under Ray Tune, with something quick in a run's place."""

import io
import json
import re
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.errors import (
    DSFedMedError,
    InterruptedRunError,
    ResourceError,
    RunDirectoryError,
)
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.progress import Progress
from dsfedmed_ray.tuning.overrides import read_overrides
from dsfedmed_ray.tuning.results import StudyResult
from dsfedmed_ray.tuning.study import tune
from dsfedmed_ray.tuning.trial import Train

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE = """
stage: distill_mutually
metric: best_validation_dice
mode: max
search: {search}
scheduler: {scheduler}
asha: {{grace_epochs: 1, reduction_factor: 2}}
space:
  method.selection.ratio: {{uniform: [0.2, 1.0]}}
  method.distillation.temperature: {{choice: [1.0, 2.0]}}
"""


@pytest.fixture(scope="module", autouse=True)
def _two_cpus() -> Iterator[None]:
    import os

    import ray

    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "1"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        logging_level="ERROR",
        log_to_driver=False,
    )
    yield
    ray.shutdown()


def _quick_train(counts: Path, *, epoch_seconds: float = 0.0, fails: str | None = None) -> Train:
    """A run of one shared stage and three distillation epochs; Dice is the selection ratio.

    Epoch ``e`` of 3 scores ``ratio - 0.1 (3 - e)``, so the last is the best. What runs is counted
    by files in ``counts``. A ratio whose override begins with ``fails`` raises.
    """

    def train(overrides: Sequence[str], progress: Progress, stop: StopRequest) -> None:
        from dsfedmed_ray.errors import NonFiniteStateError
        from dsfedmed_ray.records import ProgressRecord
        from dsfedmed_ray.run_directory import RunDirectory
        from dsfedmed_ray.runtime.journal import Journal
        from dsfedmed_ray.runtime.stage_store import StageStore

        settings = dict(override.split("=", 1) for override in overrides)
        directory = RunDirectory(Path(settings["run.dir"]))
        directory.root.mkdir(parents=True, exist_ok=True)
        counts.mkdir(exist_ok=True)
        (counts / f"start-{directory.root.name}-{time.time_ns()}").touch()
        journal = Journal(directory)
        store = StageStore(Path(settings["store.dir"]))
        ratio = float(settings.get("method.selection.ratio", "0.5"))
        with store.alone("shared", lambda: None):
            if store.find("shared") is None:
                with progress.stage("train_federated", 1), store.publishing("shared"):
                    time.sleep(0.5)
                    (counts / f"shared-{time.time_ns()}").touch()
        if fails is not None and settings.get("method.selection.ratio", "").startswith(fails):
            raise NonFiniteStateError("the state holds NaN; lower the learning rate")
        done = sum(1 for _ in directory.rounds.open())
        with progress.stage("distill_mutually", 3):
            for epoch in range(done, 3):
                time.sleep(epoch_seconds)
                record = ProgressRecord(
                    stage="distill_mutually",
                    index=epoch,
                    total=3,
                    seconds=epoch_seconds,
                    values={"validation_dice": ratio - 0.1 * (2 - epoch)},
                )
                journal.progress(record)
                (counts / f"epoch-{directory.root.name}-{epoch}-{time.time_ns()}").touch()
                progress.advance(record)
                stop.raise_if_set("resume=true")

    return train


def _count(counts: Path, pattern: str) -> int:
    return len(list(counts.glob(pattern)))


def _space(folder: Path, *, search: str = "random", scheduler: str = "fifo") -> Path:
    path = folder / "space.yaml"
    path.write_text(SPACE.format(search=search, scheduler=scheduler))
    return path


def _tune(folder: Path, train: Train, **arguments: Any) -> StudyResult:
    space = arguments.pop("space", None) or _space(folder)
    return tune(
        space,
        ["experiment=smoke", f"store.dir={folder / 'store'}"],
        study=folder / "study",
        stream=arguments.pop("stream", io.StringIO()),
        train=train,
        **arguments,
    )


def test_a_study_shares_stages_and_finds_the_best(tmp_path: Path) -> None:
    """Four trials and the baseline: the shared stage runs once, and the highest ratio wins."""
    lines = io.StringIO()
    result = _tune(tmp_path, _quick_train(tmp_path / "n"), num_trials=4, stream=lines)
    assert _count(tmp_path / "n", "shared-*") == 1
    assert result.baseline.stages_run == ("train_federated", "distill_mutually")
    assert [trial.stages_run for trial in result.trials] == [("distill_mutually",)] * 4
    assert result.baseline.score == pytest.approx(0.5)
    highest = max(trial.values["method.selection.ratio"] for trial in result.trials)
    assert result.best.score == pytest.approx(max(highest, 0.5))
    assert all(trial.status == "finished" for trial in result.trials)
    study = tmp_path / "study"
    assert read_overrides(study / "best.yaml") == list(result.best.overrides)
    assert json.loads((study / "results.json").read_text())["best"] == result.best.name
    for name in ("parallel_coordinates.png", "sensitivity.png"):
        assert (study / "figures" / name).read_bytes().startswith(b"\x89PNG")
    said = lines.getvalue()
    for trial in result.trials:
        assert f"trial {trial.name}  best validation dice {trial.score:.4f}  epoch 3/3" in said
        (repeat,) = re.findall(rf"trial {trial.name}  repeat it: dsfedmed run (.*)", said)
        assert shlex.split(repeat) == list(trial.overrides)
        assert f"method.selection.ratio={trial.values['method.selection.ratio']}" in repeat
    with pytest.raises(RunDirectoryError, match="exists; go on with it with --resume"):
        _tune(tmp_path, _quick_train(tmp_path / "n"), num_trials=4)
    with pytest.raises(RunDirectoryError, match="another number of trials"):
        _tune(tmp_path, _quick_train(tmp_path / "n"), num_trials=5, resume=True)
    again = _tune(tmp_path, _quick_train(tmp_path / "n"), num_trials=4, resume=True)
    assert [trial.score for trial in again.trials] == [trial.score for trial in result.trials]


def test_trials_that_start_together_run_a_stage_once(tmp_path: Path) -> None:
    """Two trials on two CPUs need a stage that the baseline did not make: one makes it.

    Each has a placement group of its own, and two are at work at once.
    """
    train = _quick_train(tmp_path / "n", epoch_seconds=0.3)

    def forget_after_baseline(
        overrides: Sequence[str], progress: Progress, stop: StopRequest
    ) -> None:
        import shutil

        settings = dict(override.split("=", 1) for override in overrides)
        train(overrides, progress, stop)
        if settings["run.dir"].endswith("baseline"):
            shutil.rmtree(Path(settings["store.dir"]) / "shared")

    result = _tune(tmp_path, forget_after_baseline, num_trials=4)
    assert _count(tmp_path / "n", "shared-*") == 2  # the baseline's and one trial's
    ran = [trial for trial in result.trials if "train_federated" in trial.stages_run]
    assert len(ran) == 1
    assert [trial.status for trial in result.trials] == ["finished"] * 4
    spans = sorted(_span(tmp_path / "n", trial.name) for trial in result.trials)
    assert any(late[0] < early[1] for early, late in pairwise(spans))


def _span(counts: Path, name: str) -> tuple[int, int]:
    """When a trial started and ended its last epoch, ns."""
    times = [int(path.name.rpartition("-")[2]) for path in counts.glob(f"*-{name}-*")]
    return min(times), max(times)


def test_what_the_cluster_refuses_leaves_no_study(tmp_path: Path) -> None:
    """A second start is refused for the same reason, not for the folder of the first."""
    space = _space(tmp_path)
    space.write_text(space.read_text() + "trial: {num_cpus: 3}\n")
    for _ in range(2):
        with pytest.raises(ResourceError, match=r"asks? for 3 CPU in all.*, the cluster has 2"):
            _tune(tmp_path, _quick_train(tmp_path / "n"), num_trials=1, space=space)
        assert not (tmp_path / "study").exists()


def test_asha_stops_the_worse_trials_early(tmp_path: Path) -> None:
    space = _space(tmp_path, search="optuna", scheduler="asha")
    result = _tune(
        tmp_path, _quick_train(tmp_path / "n", epoch_seconds=0.1), num_trials=8, space=space
    )
    stopped = [trial for trial in result.trials if trial.status == "stopped early"]
    finished = [trial for trial in result.trials if trial.status == "finished"]
    assert stopped
    assert finished
    assert all(trial.epoch < 3 for trial in stopped)
    assert _count(tmp_path / "n", "epoch-*") < 9 * 3


def test_a_failed_trial_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    said = io.StringIO()
    train = _quick_train(tmp_path / "n", fails="0.2")
    result = _tune(tmp_path, train, num_trials=4, stream=said)
    failed = [trial for trial in result.trials if trial.status == "failed"]
    assert 0 < len(failed) < 4
    for trial in failed:
        assert f"trial {trial.name}  repeat it: dsfedmed run experiment=smoke" in said.getvalue()
    assert {trial.error for trial in failed} == {
        "NonFiniteStateError: the state holds NaN; lower the learning rate"
    }
    assert result.best.score is not None


def test_a_study_without_any_score_says_why(tmp_path: Path) -> None:
    with pytest.raises(DSFedMedError, match="none of 2 trials reported a score; the first: NonFi"):
        _tune(tmp_path, _quick_train(tmp_path / "n", fails="0."), num_trials=2)


class StopsAtTrial(io.StringIO):
    """A signal comes as soon as a line says what a trial found."""

    def __init__(self, stop: StopRequest) -> None:
        super().__init__()
        self._stop = stop

    def write(self, text: str) -> int:
        if "best validation dice" in text:
            self._stop.signal_number = signal.SIGTERM
        return super().write(text)


def test_a_stopped_study_goes_on_where_it_was(tmp_path: Path) -> None:
    """A signal after the first trial; what is finished is not repeated, no epoch done twice."""
    stop, counts = StopRequest(), tmp_path / "n"
    train = _quick_train(counts, epoch_seconds=0.4)
    with pytest.raises(InterruptedRunError, match="--resume --study"):
        _tune(tmp_path, train, num_trials=6, stop=stop, stream=StopsAtTrial(stop))
    assert _count(counts, "epoch-*") < 7 * 3
    result = _tune(tmp_path, train, num_trials=6, resume=True)
    assert [trial.status for trial in result.trials] == ["finished"] * 6
    assert _count(counts, "shared-*") == 1
    assert _count(counts, "epoch-*") == 7 * 3


def test_search_and_rungs_survive_a_stop(tmp_path: Path) -> None:
    """One trial at a time, each worse than all before it; a signal after the first.

    With a memory ASHA stops every later one at its first rung; an empty rung would let the first
    after the stop go on. Optuna that began anew would draw the first values of its seed again.
    """
    stop, counts = StopRequest(), tmp_path / "n"
    space = _space(tmp_path, search="optuna", scheduler="asha")
    space.write_text(space.read_text() + "trial: {num_cpus: 2}\n")
    quick = _quick_train(counts, epoch_seconds=0.2)

    def ever_worse(overrides: Sequence[str], progress: Progress, stop: StopRequest) -> None:
        """The ratio falls with the number of trials before, whatever was drawn."""
        run_dir = next(item for item in overrides if item.startswith("run.dir="))
        ranks = counts / "ranks"
        ranks.mkdir(parents=True, exist_ok=True)
        mine = ranks / Path(run_dir).name
        if not mine.exists():
            mine.write_text(str(len(list(ranks.iterdir()))))
        ratio = 1.0 / (1 + int(mine.read_text()))
        quick([*overrides, f"method.selection.ratio={ratio}"], progress, stop)

    with pytest.raises(InterruptedRunError):
        _tune(tmp_path, ever_worse, num_trials=4, stop=stop, stream=StopsAtTrial(stop), space=space)
    assert _count(counts, "ranks/*") < 1 + 4
    result = _tune(tmp_path, ever_worse, num_trials=4, resume=True, space=space)
    assert sorted(trial.status for trial in result.trials) == ["finished"] + ["stopped early"] * 3
    assert {trial.epoch for trial in result.trials if trial.status == "stopped early"} == {1}
    assert len({trial.values["method.selection.ratio"] for trial in result.trials}) == 4
