"""One trial: what it reports, live and from files."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.progress import Progress
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.tuning.trial import TrialPlan, run_trial

Lines = Sequence[tuple[str, float | None]]


def _record(stage: str, index: int, dice: float | None) -> ProgressRecord:
    values = {} if dice is None else {"validation_dice": dice}
    return ProgressRecord(stage=stage, index=index, total=3, seconds=0.5, values=values)


def _writes(lines: Lines, *, live: bool) -> Callable[..., None]:
    """A run that writes lines of stages and says them, or that found them in the store."""

    def train(overrides: Sequence[str], progress: Progress, stop: StopRequest) -> None:
        settings = dict(override.split("=", 1) for override in overrides)
        assert settings["resume"] == "true"
        rounds = Path(settings["run.dir"]) / "rounds.jsonl"
        rounds.parent.mkdir(parents=True, exist_ok=True)
        numbers: dict[str, int] = {}
        for stage, dice in lines:
            numbers[stage] = numbers.get(stage, -1) + 1
            record = _record(stage, numbers[stage], dice)
            with rounds.open("a") as target:
                target.write(json.dumps(vars(record)) + "\n")
            if live:
                with progress.stage(stage, 3):
                    progress.advance(record)

    return train


def _reports(folder: Path, train: Callable[..., None]) -> list[dict[str, Any]]:
    plan = TrialPlan(folder=folder, store=folder / "store", stage="distill_mutually", train=train)
    reports: list[dict[str, Any]] = []
    run_trial(plan, "a_1", ["method=dsfedmed"], reports.append, log=io.StringIO())
    return reports


LINES: Lines = [
    ("train_federated", 0.9),
    ("distill_mutually", 0.5),
    ("distill_mutually", 0.7),
    ("distill_mutually", 0.6),
]


@pytest.mark.parametrize("live", [True, False])
def test_reports_each_epoch_of_its_stage_once_with_the_best_so_far(
    tmp_path: Path, live: bool
) -> None:
    """Dice 0.5, 0.7, 0.6: the best so far is 0.5, 0.7, 0.7. Round Dice of 0.9 does not count."""
    reports = _reports(tmp_path, _writes(LINES, live=live))
    assert [report["validation_dice"] for report in reports] == [0.5, 0.7, 0.6, 0.6]
    assert [report["best_validation_dice"] for report in reports] == [0.5, 0.7, 0.7, 0.7]
    assert [report["epoch"] for report in reports] == [1, 2, 3, 3]
    assert [report["finished"] for report in reports] == [False, False, False, True]


def test_tells_which_stages_it_ran_itself(tmp_path: Path) -> None:
    assert _reports(tmp_path / "a", _writes(LINES, live=False))[-1]["stages_run"] == []
    ran = _reports(tmp_path / "b", _writes(LINES, live=True))[-1]["stages_run"]
    assert set(ran) == {"train_federated", "distill_mutually"}


def test_after_an_interruption_the_best_of_before_counts(tmp_path: Path) -> None:
    """0.7 was reached before the interruption and stays the best at 0.4."""
    _reports(tmp_path, _writes([("distill_mutually", 0.7)], live=True))
    reports = _reports(tmp_path, _writes([("distill_mutually", 0.4)], live=True))
    assert [report["best_validation_dice"] for report in reports][-1] == 0.7


@pytest.mark.parametrize("lines", [[], [("train_federated", 0.9)], [("distill_mutually", None)]])
def test_a_run_without_validation_is_refused(tmp_path: Path, lines: Lines) -> None:
    with pytest.raises(ConfigurationError, match="distill_mutually reported no validation_dice"):
        _reports(tmp_path, _writes(lines, live=True))
