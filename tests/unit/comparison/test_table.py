"""The comparison, read as text."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from dsfedmed_ray.comparison.table import print_comparison
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.summary import Summary


def lines_of(run_dirs: list[Path]) -> list[list[str]]:
    stream = io.StringIO()
    print_comparison(run_dirs, Console(file=stream, width=110))
    return [line.split() for line in stream.getvalue().splitlines() if line.strip()]


@pytest.fixture
def two_runs(tmp_path: Path, make_summary: Callable[..., Summary]) -> list[Path]:
    """DSFedMed with seeds 0 and 1 on the unseen site: 0.75 and 0.73; its FedAvg: 0.71 twice."""
    run_dirs = []
    for seed, dice in ((0, 0.75), (1, 0.73)):
        run_dirs.append(tmp_path / f"seed{seed}")
        run_dirs[-1].mkdir()
        summary = make_summary(unseen_dice=dice, seed=seed)
        (run_dirs[-1] / "summary.json").write_text(json.dumps(summary))
    return run_dirs


def test_means(two_runs: list[Path]) -> None:
    """Mean 0.74; deviation 0.02 / sqrt(2) = 0.014; IoU of 0.75 and 0.73 are 0.600 and 0.575."""
    own = next(line for line in lines_of(two_runs) if line[0] == "dsfedmed")
    assert " ".join(own) == (
        "dsfedmed 2 0.740 ±0.014 0.587 ±0.018 5.2 ±0.3 0.850 ±0.000 15.0 MB 2.5"
    )
    baseline = next(line for line in lines_of(two_runs) if line[0] == "fedavg")
    assert baseline[-2:] == ["–", "–"]


def test_differences_are_listed(two_runs: list[Path]) -> None:
    """4 and 2 points above FedAvg: mean 3, deviation sqrt(2)."""
    lines = lines_of(two_runs)
    assert lines[-4:] == [
        ["brain_sites,", "unseen", "east,", "seed", "0", "+4.0"],
        ["brain_sites,", "unseen", "east,", "seed", "1", "+2.0"],
        ["mean", "+3.0"],
        ["standard", "deviation", "1.4"],
    ]


def test_a_single_method(tmp_path: Path, make_summary: Callable[..., Summary]) -> None:
    """One run without baselines has nothing to differ from, and no deviation."""
    summary = make_summary()
    del summary["baselines"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    lines = lines_of([tmp_path])
    assert not any("Points" in line for line in lines)
    assert lines[-1][:6] == ["dsfedmed", "1", "0.750", "0.600", "5.0", "0.850"]


def test_no_run() -> None:
    with pytest.raises(ConfigurationError, match="give at least one run directory"):
        print_comparison([], Console(file=io.StringIO()))
