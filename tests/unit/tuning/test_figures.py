"""A study's figures."""

from pathlib import Path

import pytest

from dsfedmed_ray.tuning.distributions import Distribution
from dsfedmed_ray.tuning.figures import draw_study, heights, rank_correlation
from dsfedmed_ray.tuning.results import StudyResult, TrialResult
from dsfedmed_ray.tuning.space import TuneSpace


@pytest.mark.parametrize(
    ("kind", "values", "shown", "expected"),
    [
        ("uniform", (0.2, 1.0), [0.2, 0.6, 1.0], [0.0, 0.5, 1.0]),
        ("quniform", (0.0, 1.0, 0.5), [0.5], [0.5]),
        ("randint", (1, 5), [2], [0.25]),
        ("loguniform", (0.01, 100.0), [0.01, 1.0, 10.0], [0.0, 0.5, 0.75]),
        ("choice", ("reset", "keep"), ["keep", "reset"], [1.0, 0.0]),
        ("grid", (None, 4, 8), [4], [0.5]),
        ("choice", ("one",), ["one"], [0.0]),
    ],
)
def test_heights(
    kind: str, values: tuple[object, ...], shown: list[object], expected: list[float]
) -> None:
    assert heights(Distribution(kind=kind, values=values), shown) == pytest.approx(expected)


def test_rank_correlation() -> None:
    """Ranks 1 2 3 against 1 3 2: 1 - 6 (0 + 1 + 1) / (3 (9 - 1)) = 0.5."""
    assert rank_correlation([1.0, 2.0, 3.0], [0.1, 0.3, 0.2]) == pytest.approx(0.5)
    assert rank_correlation([1.0, 1.0], [0.1, 0.2]) is None


def _study(scores: list[float | None]) -> tuple[StudyResult, TuneSpace]:
    space = TuneSpace(
        source=Path("space.yaml"),
        stage="distill_mutually",
        metric="best_validation_dice",
        mode="max",
        space={
            "method.selection.ratio": Distribution(kind="uniform", values=(0.0, 1.0)),
            "method.distillation.temperature": Distribution(kind="loguniform", values=(0.5, 4.0)),
            "lightweight": Distribution(kind="choice", values=("unet", "nnunet")),
        },
    )
    trials = tuple(
        TrialResult(
            name=f"t_{index}",
            values={
                "method.selection.ratio": 0.1 * index,
                "method.distillation.temperature": 0.5 * 1.2**index,
                "lightweight": ("unet", "nnunet")[index % 2],
            },
            overrides=(),
            status="failed" if score is None else ("finished", "stopped early")[index % 2],
            score=score,
        )
        for index, score in enumerate(scores)
    )
    baseline = TrialResult(name="baseline", values={}, overrides=(), status="finished", score=0.6)
    return StudyResult(metric=space.metric, baseline=baseline, trials=trials), space


@pytest.mark.parametrize("scores", [[0.5, 0.7, 0.6, None, 0.8, 0.4, 0.9], [0.5], [0.5, 0.5]])
def test_draws_two_pictures(tmp_path: Path, scores: list[float | None]) -> None:
    paths = draw_study(*_study(scores), tmp_path)
    assert [path.name for path in paths] == ["parallel_coordinates.png", "sensitivity.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_draws_nothing_where_nothing_was_scored(tmp_path: Path) -> None:
    assert draw_study(*_study([None]), tmp_path) == []
    assert list(tmp_path.iterdir()) == []
