"""``dsfedmed tune``, ``compare`` and ``run --from``: what is parsed and what is refused."""

from pathlib import Path

import pytest

from dsfedmed_ray import cli
from dsfedmed_ray.run_directory import RunDirectory


@pytest.mark.parametrize(
    "line",
    [
        "tune s.yaml a=1 b=2 --num-trials 3 --study x",
        "tune s.yaml --num-trials 3 a=1 --study x b=2",
        "tune --num-trials 3 --study x s.yaml a=1 b=2",
    ],
)
def test_overrides_may_stand_anywhere(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(cli, "_tune", lambda options: seen.append(options) or 0)
    assert cli.main(line.split()) == 0
    assert (seen[0].space, seen[0].study) == (Path("s.yaml"), Path("x"))
    assert seen[0].overrides == ["a=1", "b=2"]
    assert seen[0].num_trials == 3


@pytest.mark.parametrize(
    "line", ["tune s.yaml --trials 3", "report a b", "run experiment=smoke --bogus"]
)
def test_unknown_arguments_end_with_two(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(line.split())
    assert "unrecognized arguments" in capsys.readouterr().err


RATIO = "method.selection.ratio: {uniform: [0.2, 1.0]}"


@pytest.mark.parametrize(
    ("metric", "line", "overrides", "message"),
    [
        (
            "best_validation_dice",
            "method.selection.ration: {uniform: [0, 1]}",
            [],
            "space.method.selection.ration: the configuration has no such path",
        ),
        (
            "best_validation_dice",
            "method.selection.ratio: {uniform: [0.5, 0.5]}",
            [],
            "space.method.selection.ratio.uniform is empty: 0.5 is not below 0.5",
        ),
        ("loss", RATIO, [], "metric 'loss' is reported by no run; allowed: best_validation_dice"),
        ("unseen_dice", RATIO, [], "nothing is ever tuned on the unseen site"),
        (
            "validation_dice",
            "lightweight: {choice: [unet]}",
            ["method=fedavg"],
            "stage 'distill_mutually' is reported by no run of the method fedavg",
        ),
        (
            "best_validation_dice",
            RATIO,
            ["experiment=smoke", "foundation.weights=nowhere.pt"],
            "nowhere.pt",
        ),
        ("best_validation_dice", RATIO, ["split.unseen_site=nowhere"], "'nowhere' is not a site"),
    ],
)
def test_a_space_that_does_not_fit_is_one_line_and_two(
    metric: str,
    line: str,
    overrides: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without Ray, and without a study's folder."""
    space = tmp_path / "space.yaml"
    space.write_text(f"stage: distill_mutually\nmetric: {metric}\nmode: max\nspace:\n  {line}\n")
    study = tmp_path / "study"
    assert cli.main(["tune", str(space), "--study", str(study), *overrides]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not study.exists()


def test_no_trials_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tune", "dsfedmed.yaml", "--num-trials", "0", "--study", str(tmp_path / "s")]
    assert cli.main(arguments) == 2
    assert "--num-trials is 0; at least 1" in capsys.readouterr().err


def test_run_takes_a_file_of_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file's overrides come first, so that the command line is above them."""
    best = tmp_path / "best.yaml"
    best.write_text("overrides:\n- method.selection.ratio=0.5\n- method.selection.ratio=7\n")
    assert cli.main(["run", "--from", str(best)]) == 2
    assert "method.selection.ratio is 7" in capsys.readouterr().err
    assert cli.main(["run", "--from", str(best), "method.selection.ratio=8"]) == 2
    assert "method.selection.ratio is 8" in capsys.readouterr().err


def test_compare_prints_runs(
    finished_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", str(finished_run.root)]) == 0
    assert "dsfedmed" in capsys.readouterr().out
    assert cli.main(["compare", str(finished_run.root / "nothing")]) == 2
