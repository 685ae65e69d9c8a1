"""The schema of ``summary.json``."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.summary import Summary, check_summary, read_summary, write_summary


def test_written_and_read_back(tmp_path: Path, make_summary: Callable[..., Summary]) -> None:
    path = tmp_path / "summary.json"
    write_summary(path, make_summary())
    assert read_summary(path) == make_summary()


def test_least_summary(make_summary: Callable[..., Summary]) -> None:
    """A method without foundation model, generator, baselines and unseen site."""
    summary = make_summary("fedavg")
    summary["split"]["unseen_site"] = None
    summary["generator"] = None
    del summary["baselines"], summary["metrics"]["foundation"]
    del summary["metrics"]["lightweight"]["unseen"]
    assert check_summary(summary, "summary.json") == summary


def test_other_keys_may_stand_beside(make_summary: Callable[..., Summary]) -> None:
    check_summary({**make_summary(), "virtual_hours": [1, 2]}, "summary.json")


def remove(summary: dict[str, Any], *path: str) -> None:
    for key in path[:-1]:
        summary = summary[key]
    del summary[path[-1]]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (("seed",), "seed is missing"),
        (("communication", "by_stage"), r"communication\.by_stage is missing"),
        (
            ("metrics", "lightweight", "seen", "south", "hd95_px"),
            r"metrics\.lightweight\.seen\.south\.hd95_px is missing",
        ),
        (
            ("metrics", "foundation", "unseen", "mean"),
            r"metrics\.foundation\.unseen\.mean is missing",
        ),
        (
            ("baselines", "fedavg", "lightweight", "seen", "mean"),
            r"baselines\.fedavg\.lightweight\.seen\.mean is missing",
        ),
    ],
)
def test_missing_key(path: tuple[str, ...], problem: str, make_summary: Callable[..., Any]) -> None:
    summary = make_summary()
    remove(summary, *path)
    with pytest.raises(RunDirectoryError, match=problem):
        check_summary(summary, "summary.json")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seed": 1.5}, "seed is 1.5, expected an integer"),
        ({"seed": True}, "seed is True, expected an integer"),
        ({"method": None}, "method is None, expected a text"),
        ({"split": {"unseen_site": 3}}, r"split\.unseen_site is 3, expected a text"),
        ({"inference_ms": {"lightweight": "2"}}, r"inference_ms\.lightweight is '2', expected a f"),
        ({"wall_seconds": {"total": math.nan}}, r"wall_seconds\.total is nan, expected a finite"),
        ({"metrics": []}, r"metrics is \[\], expected an object"),
    ],
)
def test_value_of_another_kind(
    change: dict[str, Any], problem: str, make_summary: Callable[..., Summary]
) -> None:
    with pytest.raises(RunDirectoryError, match=problem):
        check_summary({**make_summary(), **change}, "summary.json")


def test_nothing_is_written_that_cannot_be_read(
    tmp_path: Path, make_summary: Callable[..., Summary]
) -> None:
    summary = make_summary(unseen_dice=math.nan)
    with pytest.raises(RunDirectoryError, match=r"unseen\.east\.dice is nan"):
        write_summary(tmp_path / "summary.json", summary)
    assert list(tmp_path.iterdir()) == []


def test_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(
        RunDirectoryError, match=r"cannot read .*summary\.json: No such file.*resum"
    ):
        read_summary(tmp_path / "summary.json")


def test_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"seed": 1})[:-2])
    with pytest.raises(RunDirectoryError, match=r"summary\.json is not JSON \(.*resume=true"):
        read_summary(path)


def test_not_an_object() -> None:
    with pytest.raises(RunDirectoryError, match=r"it is \[\], expected an object"):
        check_summary([], "summary.json")
