"""Lines on a log, bars on a terminal."""

import io
from dataclasses import replace

import pytest

from dsfedmed_ray.progress import (
    LineProgress,
    RichProgress,
    SilentProgress,
    progress_line,
    show_progress,
)
from dsfedmed_ray.records import ProgressRecord

ROUND = ProgressRecord(
    stage="train_federated",
    index=2,
    total=20,
    seconds=12.4,
    values={
        "num_replies": 5,
        "num_clients": 5,
        "validation_dice": 0.8123,
        "validation_dice/site_01": 0.7,
        "uplink_bytes": 41.2 * 2**20,
        "downlink_bytes": 41.2 * 2**20,
    },
)
EPOCH = ProgressRecord(
    stage="adapt_foundation", index=0, total=3, seconds=65, values={"loss": 0.123456}
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_of_a_round() -> None:
    assert progress_line(ROUND) == "round 3/20  clients 5/5  dice 0.812  up 41.2 MB  12.4 s"


def test_line_of_a_simulated_round() -> None:
    """Two of five are not heard of, and why; the virtual clock beside the real one."""
    values = {"num_replies": 3, "num_clients": 5, "num_absent": 1, "num_late": 1}
    record = replace(ROUND, values={**values, "simulated_seconds": 7380.0})
    assert progress_line(record) == (
        "round 3/20  clients 3/5  1 absent  1 late  simulated 2 h 03 min  12.4 s"
    )


def test_line_of_an_epoch() -> None:
    assert progress_line(EPOCH) == "adapt foundation  epoch 1/3  loss 0.1235  1 min 05 s"


def test_lines_on_a_log() -> None:
    stream = io.StringIO()
    with show_progress(stream) as progress:
        assert isinstance(progress, LineProgress)
        progress.note("2 clients, 0.5 CPU each")
        with progress.stage("adapt_foundation", 3):
            progress.advance(EPOCH)
    lines = stream.getvalue().splitlines()
    assert lines[:3] == ["2 clients, 0.5 CPU each", "adapt foundation", progress_line(EPOCH)]
    assert lines[3].startswith("adapt foundation  took 0.0 s")


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with show_progress(stream) as progress:
        assert isinstance(progress, RichProgress)
        with progress.stage("train_federated", 20), progress.stage("adapt_foundation", 3):
            progress.advance(ROUND)
            progress.advance(EPOCH)
        progress.note("saved [to] runs/a")
    text = stream.getvalue()
    assert "train federated" in text
    assert " 3/20" in text
    assert "dice 0.812" in text
    assert "saved [to] runs/a" in text


def test_clients_are_counted_as_they_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client 4 of 4 finishes first: one of four is done."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with show_progress(stream) as progress, progress.stage("tune_generators", 4):
        progress.advance(ProgressRecord(stage="tune_generators", index=3, total=4, seconds=1.0))
    assert "1/4" in stream.getvalue()
    assert "4/4" not in stream.getvalue()


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SilentProgress()
    with progress.stage("train_federated", 20):
        progress.advance(ROUND)
        progress.note("nothing")
    assert capsys.readouterr() == ("", "")
