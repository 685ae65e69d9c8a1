"""The report page: what it holds, and that it asks the network for nothing."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.report.html import write_report
from dsfedmed_ray.run_directory import RunDirectory
from dsfedmed_ray.summary import Summary


class Outline(HTMLParser):
    """Collects headings, texts and addresses, and checks that elements close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def outline_of(run: RunDirectory) -> Outline:
    outline = Outline()
    outline.feed(write_report(run).read_text(encoding="utf-8"))
    assert outline.open == []
    return outline


def write_picture(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)


def test_least_report(tmp_path: Path, make_summary: Callable[..., Summary]) -> None:
    """A run that only has a summary still gets its page."""
    run = RunDirectory(tmp_path)
    run.summary.write_text(json.dumps({**make_summary("fedavg"), "generator": None}))
    assert outline_of(run).headings == ["Results", "Time", "Settings"]
    assert not run.figures.exists()


def test_full_report(finished_run: RunDirectory) -> None:
    finished_run.transfers.write_text(
        '{"client": "north", "direction": "uplink", "stage": "tune_generators", '
        '"what": "controlnet", "num_bytes": 10485760, "round_index": null}\n'
    )
    for name in ("synthetic", "predictions"):
        write_picture(finished_run.figures / f"{name}.png")
    outline = outline_of(finished_run)
    assert outline.headings == [
        "Results",
        "Validation",
        "Communication",
        "Time",
        "Synthetic set",
        "Predictions",
        "Settings",
    ]
    for phrase in (
        "0.750 Dice on east, a site it never trained on",
        "4.0 points above FedAvg.",
        "tune generators10.0 MB",
        "train federated2 min 05 s",
        "mask agreement 0.84",
        "note: 1 < 2 & 3",
        "torch2.4.0",
    ):
        assert phrase in outline.text
    assert (finished_run.figures / "rounds.png").stat().st_size > 5000


def test_nothing_is_fetched(finished_run: RunDirectory) -> None:
    write_picture(finished_run.figures / "synthetic.png")
    outline = outline_of(finished_run)
    assert outline.addresses
    assert all(address.startswith("data:image/png;base64,") for address in outline.addresses)
    page = finished_run.report.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[\w.]+", page)) <= {"http://www.w3.org"}
    assert "@import" not in page


def test_same_run_same_page(finished_run: RunDirectory) -> None:
    first = write_report(finished_run).read_bytes()
    assert write_report(finished_run).read_bytes() == first


def test_below_the_baseline(
    finished_run: RunDirectory, make_summary: Callable[..., Summary]
) -> None:
    """0.700 against 0.710 is 1.0 points below, and the page says so."""
    finished_run.summary.write_text(json.dumps(make_summary(unseen_dice=0.70)))
    assert "1.0 points below FedAvg." in outline_of(finished_run).text


def test_as_good_as_the_baseline(
    finished_run: RunDirectory, make_summary: Callable[..., Summary]
) -> None:
    """Both at 0.710: neither is above."""
    finished_run.summary.write_text(json.dumps(make_summary(unseen_dice=0.71)))
    text = outline_of(finished_run).text
    assert "The same as FedAvg." in text
    assert "points above FedAvg" not in text


def test_the_virtual_clock_is_shown(
    finished_run: RunDirectory, make_summary: Callable[..., Summary]
) -> None:
    summary = make_summary()
    summary["simulated_seconds"] = {"train_federated": 7380.0}
    finished_run.summary.write_text(json.dumps(summary))
    page = write_report(finished_run).read_text()
    assert "2 h 03 min</span>of rounds on the virtual clock" in page
    summary["simulated_seconds"] = {"tune_generators": 60.0, "train_federated": 7320.0}
    finished_run.summary.write_text(json.dumps(summary))
    page = write_report(finished_run).read_text()
    assert "2 h 03 min</span>of ControlNet uploads and rounds on the virtual clock" in page


def test_names_are_escaped(
    finished_run: RunDirectory, make_summary: Callable[..., Summary]
) -> None:
    summary = make_summary()
    summary["data"] = "<script>alert(1)</script>"
    finished_run.summary.write_text(json.dumps(summary))
    assert "<script" not in write_report(finished_run).read_text(encoding="utf-8")


def test_no_unseen_site(finished_run: RunDirectory, make_summary: Callable[..., Summary]) -> None:
    summary = make_summary()
    summary["split"]["unseen_site"] = None
    finished_run.summary.write_text(json.dumps(summary))
    assert "0.850 Dice on the test images of 2 sites" in outline_of(finished_run).text


def test_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"cannot read .*summary\.json"):
        write_report(RunDirectory(tmp_path))
    assert list(tmp_path.iterdir()) == []
