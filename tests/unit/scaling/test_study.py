"""A study from its configuration to its files, with measurements that take no time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dsfedmed_ray import cli
from dsfedmed_ray.configuration import compose, conf_dir
from dsfedmed_ray.errors import InterruptedRunError, RunDirectoryError
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.scaling.measurement import Measurement, Task
from dsfedmed_ray.scaling.results import print_results
from dsfedmed_ray.scaling.study import scale

STUDIES = sorted(path.stem for path in (conf_dir() / "experiment").glob("scale_*.yaml"))
SMALL = [
    "experiment=scale_workers",
    "scaling.clients=[10,20]",
    "scaling.repeats=2",
    "schedule.rounds=2",
]


class FakeRuns:
    """Answers 0.1 s and 10 ms a client and worker; may be stopped after some runs."""

    def __init__(self, measured: Callable[..., Measurement], stop_after: int | None = None) -> None:
        self._measured = measured
        self._stop_after = stop_after
        self.tasks: list[Task] = []

    def __call__(
        self, task: Task, on_round: Callable[[ProgressRecord], None], stop: StopRequest
    ) -> Measurement:
        if len(self.tasks) == self._stop_after:
            raise InterruptedRunError(15, "the run's own hint")
        self.tasks.append(task)
        for index in range(2):
            on_round(
                ProgressRecord(stage="train_federated", index=index, total=2, seconds=1, values={})
            )
        point = task.point
        seconds = 0.1 + 0.01 * point.clients / point.workers
        return self._measured(point.clients, point.workers, seconds, repeat=task.repeat)


class Rounds(SilentProgress):
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def advance(self, record: ProgressRecord) -> None:
        self.seen.append((record.stage, record.index, record.total))


def test_files_and_numbers_of_a_study(tmp_path: Path, measured: Callable[..., Any]) -> None:
    runs, progress = FakeRuns(measured), Rounds()
    root = tmp_path / "study"
    overrides = [*SMALL, f"run.dir={root}", f"run.publish=file://{tmp_path}/bucket"]
    result, folder = scale(overrides, progress, StopRequest(), measure=runs)
    assert folder == root
    assert (tmp_path / "bucket" / "study" / "manifest.json").exists()
    assert len(runs.tasks) == 2 * 2 * 2
    assert progress.seen == [("scaling", index, 16) for index in range(16)]
    files = {str(path.relative_to(root)) for path in root.rglob("*.*")}
    assert {name for name in files if not name.startswith("measurements/")} == {
        "config.yaml",
        "results.json",
        "results.csv",
        "figures/scaling.png",
        "figures/scaling.svg",
        "figures/cost_model.png",
        "figures/cost_model.svg",
    }
    content = json.loads((root / "results.json").read_text())
    assert content["cost_model"]["a_seconds"] == pytest.approx(0.1)
    assert len(content["rows"]) == len(result.rows) == 4
    lines = (root / "results.csv").read_text().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("clients,workers,gpus,population,num_runs,seconds.mean,")


def test_a_stopped_study_goes_on(tmp_path: Path, measured: Callable[..., Any]) -> None:
    overrides = [*SMALL, f"run.dir={tmp_path / 'study'}"]
    with pytest.raises(InterruptedRunError, match=r"signal 15; go on with: .* resume=true run.dir"):
        scale(overrides, Rounds(), StopRequest(), measure=FakeRuns(measured, stop_after=3))
    assert not (tmp_path / "study" / "results.json").exists()
    rest = FakeRuns(measured)
    result, _ = scale([*overrides, "resume=true"], Rounds(), StopRequest(), measure=rest)
    assert len(rest.tasks) == 8 - 3
    assert all(row.num_runs == 2 for row in result.rows)


def test_a_folder_is_used_once_and_for_one_study(
    tmp_path: Path, measured: Callable[..., Any]
) -> None:
    overrides = [*SMALL, f"run.dir={tmp_path / 'study'}"]
    scale(overrides, Rounds(), StopRequest(), measure=FakeRuns(measured))
    with pytest.raises(RunDirectoryError, match=r"study exists; choose another run\.dir"):
        scale(overrides, Rounds(), StopRequest(), measure=FakeRuns(measured))
    other = [*overrides, "resume=true", "scaling.repeats=3"]
    with pytest.raises(RunDirectoryError, match=r"belongs to another configuration"):
        scale(other, Rounds(), StopRequest(), measure=FakeRuns(measured))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=smoke"], "this experiment has no scaling grid; use experiment=scale_clients"),
        (["experiment=scale_workers", "scaling.clients=[0]"], "scaling.clients is [0]; at least"),
        (["experiment=scale_workers", "scaling.clients=few"], "scaling.clients is 'few'; expected"),
        (
            ["experiment=scale_workers", "scaling.speed=1"],
            "scaling.speed is not a key; scaling has",
        ),
        (["experiment=scale_workers", "schedule.rounds=1"], "leaves no round to measure"),
        (["experiment=scale_workers", "scaling.gpus=[9999]"], "scaling.gpus holds 9999, this"),
        (["experiment=scale_workers", "method=centralized"], "has no method.federated"),
        (["--predict", "clients=5"], "runs/ holds no finished scaling study with a cost model"),
        (["--from", "nowhere"], "--from belongs to --predict"),
        (
            ["--predict", "clients=5", "--from", "nowhere"],
            "nowhere holds no finished scaling study",
        ),
    ],
)
def test_mistakes_are_one_line_and_two_and_leave_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["scale", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_predict_prints_seconds_and_error(
    tmp_path: Path,
    measured: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0.1 s and 10 ms x 10000 / 64 are 1.66 s. Without --from it is the newest study that can."""
    monkeypatch.chdir(tmp_path)
    root = Path("runs", "study")
    scale([*SMALL, f"run.dir={root}"], Rounds(), StopRequest(), measure=FakeRuns(measured))
    request = ["scale", "--predict", "clients=10000", "workers=64", "--from", str(root)]
    assert cli.main(request) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("1.66 s a round")
    assert "error on held-out grid points: median 0.0%" in printed
    (tmp_path / "runs" / "tune").mkdir()
    (tmp_path / "runs" / "tune" / "results.json").write_text('{"trials": []}')
    assert cli.main(["scale", "--predict", "clients=10000", "gpus=64"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("1.66 s a round")
    assert "no GPU was measured: each is taken for one of the study's CPU workers" in printed
    assert printed.endswith(f"cost model     {root}\n")


def test_the_table_leaves_out_what_no_row_has(
    tmp_path: Path, measured: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*SMALL, f"run.dir={tmp_path / 'study'}"]
    result, folder = scale(overrides, Rounds(), StopRequest(), measure=FakeRuns(measured))
    print_results(result, folder, Console(width=80))
    printed = capsys.readouterr().out
    assert "…" not in printed
    for name in ("clients", "workers", "s/round", "strong", "driver"):
        assert name in printed
    for name in ("population", "gpus", "dice", "simulated s"):
        assert name not in printed
    assert "seconds = 0.1 + 0.01 x clients/workers" in printed


def test_a_virtual_clock_has_a_column_and_a_panel(
    tmp_path: Path, measured: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten times the clients a worker, on the clock: 10 clients of one worker take 100 s."""

    def measure(task: Task, on_round: object, stop: object) -> Measurement:
        share = task.point.clients / task.point.workers
        clock = [10 * share] * 3
        point = task.point
        return measured(point.clients, point.workers, 1.0 + share, simulated_seconds=clock)

    overrides = [*SMALL, f"run.dir={tmp_path / 'study'}"]
    result, folder = scale(overrides, Rounds(), StopRequest(), measure=measure)
    assert result.rows[0].simulated_seconds is not None
    assert json.loads((folder / "results.json").read_text())["rows"][0]["simulated_seconds"] == {
        "mean": 100.0,
        "half_width": 0.0,
    }
    assert "simulated_seconds.mean" in (folder / "results.csv").read_text().splitlines()[0]
    drawn = (folder / "figures" / "scaling.svg").read_text()
    for title in ("simulated seconds a round", "efficiency, %, dashed: weak"):
        assert title in drawn
    print_results(result, folder, Console(width=160))
    assert "simulated s" in capsys.readouterr().out


@pytest.mark.parametrize("name", STUDIES)
def test_every_shipped_study_reaches_its_results(
    name: str, tmp_path: Path, measured: Callable[..., Any]
) -> None:
    """The grid as it is shipped; what a point measures is replaced, what it builds is not."""

    def measure(task: Task, on_round: object, stop: object) -> Measurement:
        point = task.point
        seconds = 1.0 + point.clients / point.workers
        return measured(
            point.clients, point.workers, seconds, repeat=task.repeat, population=point.population
        )

    overrides = [f"experiment={name}", f"run.dir={tmp_path / name}"]
    result, folder = scale(overrides, Rounds(), StopRequest(), measure=measure)
    assert result.name == name == compose(overrides).scaling.name
    assert (folder / "figures" / "scaling.png").stat().st_size < 150_000
