"""Runs are compared only where they share data, unseen site and seed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dsfedmed_ray.comparison.pairing import (
    Setting,
    Spread,
    choose_reference,
    describe,
    differences,
    read_results,
)
from dsfedmed_ray.errors import ConfigurationError, RunDirectoryError
from dsfedmed_ray.summary import Summary

Make = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path, make_summary: Callable[..., Summary]) -> Make:
    def make(name: str, method: str, unseen_dice: float, seed: int, *, baselines: bool) -> Path:
        summary = make_summary(method, unseen_dice=unseen_dice, seed=seed)
        if not baselines:
            del summary["baselines"]
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
        return tmp_path / name

    return make


def setting(seed: int) -> Setting:
    return Setting(data="brain_sites", unseen_site="east", seed=seed)


def test_differences_by_hand(make_run: Make) -> None:
    """0.75 - 0.70 and 0.74 - 0.73 are 5 and 1 points; seed 2 has no counterpart."""
    results = read_results(
        [
            make_run("d0", "dsfedmed", 0.75, 0, baselines=False),
            make_run("d1", "dsfedmed", 0.74, 1, baselines=False),
            make_run("d2", "dsfedmed", 0.90, 2, baselines=False),
            make_run("f1", "fedavg", 0.73, 1, baselines=False),
            make_run("f0", "fedavg", 0.70, 0, baselines=False),
        ]
    )
    found = differences(results["dsfedmed"], results["fedavg"])
    assert found == {setting(0): pytest.approx(5), setting(1): pytest.approx(1)}


def test_other_images_of_the_same_name_are_no_pair(make_run: Make) -> None:
    """Two folders may both be called brain_sites, or one may have been divided in two ways."""
    folders = [
        make_run("d0", "dsfedmed", 0.75, 0, baselines=False),
        make_run("f0", "fedavg", 0.70, 0, baselines=False),
    ]
    for folder, fingerprint in zip(folders, ("0a", "0b"), strict=True):
        summary = json.loads((folder / "summary.json").read_text())
        content = {**summary, "data_fingerprint": fingerprint}
        (folder / "summary.json").write_text(json.dumps(content))
    results = read_results(folders)
    assert differences(results["dsfedmed"], results["fedavg"]) == {}


def test_a_runs_baselines_are_methods_too(make_run: Make) -> None:
    """The example's FedAvg baseline has 0.71 on the unseen site."""
    results = read_results([make_run("d0", "dsfedmed", 0.75, 0, baselines=True)])
    assert list(results) == ["dsfedmed", "fedavg"]
    assert results["fedavg"][setting(0)].decisive["dice"] == 0.71


def test_a_run_goes_before_a_baseline(make_run: Make) -> None:
    """FedAvg trained to its own plateau counts, not the stage inside DSFedMed."""
    results = read_results(
        [
            make_run("d0", "dsfedmed", 0.75, 0, baselines=True),
            make_run("f0", "fedavg", 0.73, 0, baselines=False),
        ]
    )
    assert results["fedavg"][setting(0)].decisive["dice"] == 0.73


def test_same_run_twice(make_run: Make) -> None:
    runs = [make_run(name, "dsfedmed", 0.75, 0, baselines=False) for name in ("a", "b")]
    with pytest.raises(
        ConfigurationError,
        match=r"a and .*b are both dsfedmed .*\(brain_sites, unseen east, seed 0\); compare one",
    ):
        read_results(runs)


def test_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="give the directory of a finished run"):
        read_results([tmp_path])


def test_reference(make_run: Make) -> None:
    results = read_results([make_run("d0", "dsfedmed", 0.75, 0, baselines=True)])
    assert choose_reference(results, None) == "fedavg"
    assert choose_reference(results, "dsfedmed") == "dsfedmed"
    assert choose_reference({"dsfedmed": results["dsfedmed"]}, None) == "dsfedmed"
    with pytest.raises(
        ConfigurationError, match="'fedsam' is not a method of these runs; methods: dsfedmed, fed"
    ):
        choose_reference(results, "fedsam")


def test_spread_by_hand() -> None:
    """Of 1 and 3: mean 2, sample variance (1 + 1) / 1 = 2."""
    assert Spread((1.0, 3.0)).mean == 2
    assert Spread((1.0, 3.0)).deviation == pytest.approx(2**0.5)
    assert Spread((1.0,)).deviation is None


def test_description_without_unseen_site() -> None:
    assert describe(Setting(data="chaos", unseen_site="", seed=3)) == "chaos, seed 3"
