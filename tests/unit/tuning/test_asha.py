"""Rungs that are filled again by trials of an earlier process."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from dsfedmed_ray.tuning.asha import RememberingAsha

CONTROLLER: Any = None


@pytest.fixture
def scheduler(tmp_path: Path) -> RememberingAsha:
    """Of a new process: one rung after each epoch that is a power of two."""
    return RememberingAsha(
        tmp_path,
        "distill_mutually",
        time_attr="epoch",
        metric="best_validation_dice",
        mode="max",
        grace_period=1,
        reduction_factor=2,
    )


def _trial(name: str, judged: int = 0) -> Any:
    """What Ray Tune has saved of a trial that was judged after some epochs."""
    reported = {"epoch": judged} if judged else {}
    return SimpleNamespace(
        trial_id=name, has_reported_at_least_once=judged > 0, last_result=reported
    )


def _earlier(folder: Path, judged: int, *dice: float) -> Any:
    """A trial of an earlier process, with its lines."""
    folder.mkdir()
    with (folder / "rounds.jsonl").open("w") as target:
        for index, value in enumerate(dice):
            values = {"validation_dice": value}
            line = {"stage": "distill_mutually", "index": index, "total": 3, "values": values}
            target.write(json.dumps(line) + "\n")
    return _trial(folder.name, judged)


def _decision(scheduler: RememberingAsha, trial: Any, epoch: int, dice: float) -> str:
    report = {"epoch": epoch, "best_validation_dice": dice}
    return scheduler.on_trial_result(CONTROLLER, trial, report)


@pytest.mark.parametrize(
    ("dice", "decision"), [(0.59, TrialScheduler.STOP), (0.61, TrialScheduler.CONTINUE)]
)
def test_a_new_trial_is_compared_with_earlier_ones(
    scheduler: RememberingAsha, tmp_path: Path, dice: float, decision: str
) -> None:
    """0.5 and 0.7 stand at the first rung; their median is 0.6."""
    scheduler.on_trial_add(CONTROLLER, _earlier(tmp_path / "a_0", 3, 0.5, 0.6, 0.4))
    scheduler.on_trial_add(CONTROLLER, _earlier(tmp_path / "a_1", 1, 0.7))
    new = _trial("a_2")
    scheduler.on_trial_add(CONTROLLER, new)
    assert _decision(scheduler, new, 1, dice) == decision


def test_an_interrupted_trial_is_judged_where_it_was_not_yet(
    scheduler: RememberingAsha, tmp_path: Path
) -> None:
    """Judged after epoch 1, interrupted with epoch 2 written: 0.3 is below the other's 0.6 there.

    At the first rung it was let through and is not judged again, though 0.2 is below 0.5.
    """
    scheduler.on_trial_add(CONTROLLER, _earlier(tmp_path / "a_0", 3, 0.5, 0.6, 0.4))
    going_on = _earlier(tmp_path / "a_1", 1, 0.2, 0.3)
    scheduler.on_trial_add(CONTROLLER, going_on)
    assert _decision(scheduler, going_on, 1, 0.2) == TrialScheduler.CONTINUE
    assert _decision(scheduler, going_on, 2, 0.3) == TrialScheduler.STOP


def test_a_new_study_has_nothing_to_compare_with(scheduler: RememberingAsha) -> None:
    new = _trial("a_0")
    scheduler.on_trial_add(CONTROLLER, new)
    assert _decision(scheduler, new, 1, 0.0) == TrialScheduler.CONTINUE
