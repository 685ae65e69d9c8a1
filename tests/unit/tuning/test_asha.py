"""Rungs that are filled again from what earlier trials wrote."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from dsfedmed_ray.tuning.asha import RememberingAsha


def _wrote(folder: Path, *dice: float) -> None:
    folder.mkdir(parents=True)
    with (folder / "rounds.jsonl").open("w") as target:
        for index, value in enumerate(dice):
            values = {"validation_dice": value}
            line = {"stage": "distill_mutually", "index": index, "total": 3, "values": values}
            target.write(json.dumps(line) + "\n")


def _first_report(trials: Path, dice: float) -> str:
    """What the scheduler of a new process decides of a new trial at its first rung."""
    scheduler = RememberingAsha(
        trials,
        "distill_mutually",
        time_attr="epoch",
        metric="best_validation_dice",
        mode="max",
        grace_period=1,
        reduction_factor=2,
    )
    controller: Any = None
    trial: Any = SimpleNamespace(trial_id="new")
    scheduler.on_trial_add(controller, trial)
    report = {"epoch": 1, "best_validation_dice": dice}
    return scheduler.on_trial_result(controller, trial, report)


def test_an_earlier_trial_is_compared_with(tmp_path: Path) -> None:
    """0.5 and 0.7 stand at the first rung, whose median is 0.6; the baseline's 0.1 is no trial."""
    _wrote(tmp_path / "a_0", 0.5, 0.6, 0.4)
    _wrote(tmp_path / "a_1", 0.7)
    _wrote(tmp_path / "baseline", 0.1)
    (tmp_path / "a_2").mkdir()
    assert _first_report(tmp_path, 0.59) == TrialScheduler.STOP
    assert _first_report(tmp_path, 0.61) == TrialScheduler.CONTINUE


def test_a_new_study_has_nothing_to_compare_with(tmp_path: Path) -> None:
    assert _first_report(tmp_path / "trials", 0.0) == TrialScheduler.CONTINUE
