"""Results of a study: the best, files, table."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dsfedmed_ray.errors import DSFedMedError
from dsfedmed_ray.tuning.overrides import read_overrides
from dsfedmed_ray.tuning.results import (
    StudyResult,
    TrialResult,
    closing_lines,
    require_a_score,
    results_table,
    short_names,
    write_best,
    write_results,
)

RATIO, RATE = "method.selection.ratio", "method.distillation.lightweight_learning_rate"


def _trial(name: str, score: float | None, ratio: float = 0.5) -> TrialResult:
    return TrialResult(
        name=name,
        values={RATIO: ratio, RATE: 1e-4},
        overrides=("experiment=smoke", f"{RATIO}={ratio}"),
        status="failed" if score is None else "finished",
        score=score,
        epoch=0 if score is None else 3,
        num_epochs=0 if score is None else 3,
        error="the state holds NaN" if score is None else None,
    )


BASELINE = TrialResult(
    name="baseline", values={}, overrides=("experiment=smoke",), status="finished", score=0.8
)


def _study(*scores: float | None) -> StudyResult:
    trials = tuple(_trial(f"t_{i}", score, 0.1 * (i + 1)) for i, score in enumerate(scores))
    return StudyResult(metric="best_validation_dice", baseline=BASELINE, trials=trials)


def test_the_best_is_the_highest_and_the_first_of_equals() -> None:
    assert _study(0.7, 0.9, None, 0.9).best.name == "t_1"


def test_the_baseline_is_the_best_where_no_trial_is_above_it() -> None:
    study = _study(0.7, 0.8)
    assert study.best is BASELINE
    assert closing_lines(study, Path("study"))[0] == "no trial is above the untouched configuration"


def test_a_study_of_failures_is_refused() -> None:
    with pytest.raises(DSFedMedError, match=r"none of 2 trials .*; the first: the state"):
        require_a_score(_study(None, None))


def test_files(tmp_path: Path) -> None:
    study = _study(0.7, 0.9)
    write_results(study, tmp_path / "results.json")
    write_best(study, tmp_path / "best.yaml")
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["best"] == "t_1"
    assert [trial["score"] for trial in content["trials"]] == [0.7, 0.9]
    assert read_overrides(tmp_path / "best.yaml") == ["experiment=smoke", f"{RATIO}=0.2"]
    first = (tmp_path / "best.yaml").read_text().splitlines()[0]
    assert first.startswith("# Trial t_1 of 2: best_validation_dice 0.9000 on the seen sites'")


def test_the_table_ranks_trials_below_the_baseline() -> None:
    text = io.StringIO()
    Console(width=160, file=text).print(results_table(_study(0.7, None, 0.9)))
    lines = text.getvalue().splitlines()
    rows = [line.split() for line in lines if line.strip().startswith(("baseline", "t_"))]
    assert [row[0] for row in rows] == ["baseline", "t_2", "t_0", "t_1"]
    assert rows[1][1:3] == ["0.9000", "0.0001"]  # the score, then the first setting by path
    assert rows[3][-1] == "failed"


def test_settings_that_do_not_fit_beside_each_other_share_a_cell() -> None:
    """36 characters for the rest and 2 + 6 for ``ratio``, more for the longer other setting."""
    text = io.StringIO()
    Console(width=160, file=text).print(results_table(_study(0.7, None, 0.9), width=50))
    best = next(line for line in text.getvalue().splitlines() if line.strip().startswith("t_2"))
    assert "lightweight learning rate 0.0001, ratio 0.3 " in best


def test_closing_lines_repeat_the_best_trial() -> None:
    lines = closing_lines(_study(0.7, 0.9, None), Path("runs/s"))
    assert lines[0] == "best           t_1, 0.9000; baseline 0.8000"
    assert lines[1] == "failed         1 trials; t_2: the state holds NaN"
    assert lines[2] == f"repeat it      dsfedmed run experiment=smoke {RATIO}=0.2"
    assert lines[3] == "or             dsfedmed run --from runs/s/best.yaml"


def test_a_trial_costs_a_part_of_a_whole_run() -> None:
    """Trials of 10 and 20 s, a baseline of 60 s that ran two stages: 15 / 60."""
    first, second = _study(0.7, 0.9).trials
    study = StudyResult(
        metric="best_validation_dice",
        baseline=replace(BASELINE, seconds=60.0, stages_run=("synthesize", "distill_mutually")),
        trials=(replace(first, seconds=10.0), replace(second, seconds=20.0)),
    )
    assert study.relative_cost == pytest.approx(0.25)
    line = "cost           30.0 s in trials, 0.25 of a whole run (1 min 00 s) each"
    assert closing_lines(study, Path("study"))[1] == line
    assert replace(study, baseline=BASELINE).relative_cost is None  # it took all from the store


def test_short_names_tell_paths_apart() -> None:
    assert short_names(["a.b.rate", "a.c.rate", "a.b.ratio", "rate"]) == {
        "a.b.rate": "b.rate",
        "a.c.rate": "c.rate",
        "a.b.ratio": "ratio",
        "rate": "rate",
    }
