"""Lines that are never twice and never lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.records import ProgressRecord, Transfer
from dsfedmed_ray.run_directory import RunDirectory, read_json_lines
from dsfedmed_ray.runtime.journal import Journal


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def write(journal: Journal, stage: str, units: range) -> None:
    for unit in units:
        journal.progress(ProgressRecord(stage=stage, index=unit, total=9, seconds=1.0))
        journal.transfers(
            Transfer(
                client=client,
                direction="uplink",
                stage=stage,
                what="state",
                num_bytes=8,
                round_index=unit,
            )
            for client in ("a", "b")
        )


def units(directory: RunDirectory, stage: str) -> tuple[list[Any], list[Any]]:
    rounds = [x["index"] for x in read_json_lines(directory.rounds) if x["stage"] == stage]
    transfers = [
        x["round_index"] for x in read_json_lines(directory.transfers) if x["stage"] == stage
    ]
    return rounds, transfers


def test_lines_are_on_disk_at_once(directory: RunDirectory) -> None:
    write(Journal(directory), "train", range(2))
    assert units(directory, "train") == ([0, 1], [0, 0, 1, 1])
    assert json.loads(directory.rounds.read_text().splitlines()[0]) == {
        "stage": "train",
        "index": 0,
        "total": 9,
        "seconds": 1.0,
        "values": {},
    }


def test_keeping_up_to_a_unit_touches_that_stage_only(directory: RunDirectory) -> None:
    journal = Journal(directory)
    write(journal, "train", range(4))
    write(journal, "distil", range(3))
    journal.keep("train", up_to_unit=1)
    assert units(directory, "train") == ([0, 1], [0, 0, 1, 1])
    assert units(directory, "distil") == ([0, 1, 2], [0, 0, 1, 1, 2, 2])
    journal.keep("distil", up_to_unit=-1)
    assert units(directory, "distil") == ([], [])


def test_lines_outside_rounds_go_when_their_stage_is_done_again(directory: RunDirectory) -> None:
    journal = Journal(directory)
    line = Transfer(client="a", direction="downlink", stage="deliver", what="state", num_bytes=1)
    journal.transfers([line])
    journal.keep("deliver", up_to_unit=-1)
    assert directory.transfers.read_text() == ""


def test_a_torn_last_line_is_dropped(directory: RunDirectory) -> None:
    """The process was killed while it wrote round 2."""
    write(Journal(directory), "train", range(2))
    for path in (directory.rounds, directory.transfers):
        with path.open("a") as lines:
            lines.write('{"stage": "train", "index": 2, "to')
    journal = Journal(directory)
    journal.keep("train", up_to_unit=1)
    write(journal, "train", range(2, 3))
    assert units(directory, "train") == ([0, 1, 2], [0, 0, 1, 1, 2, 2])


def test_a_stages_lines_come_back_from_the_store(directory: RunDirectory, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    stage.mkdir()
    journal = Journal(directory)
    write(journal, "train", range(2))
    write(journal, "distil", range(1))
    journal.save_stage("train", stage)
    other = RunDirectory(tmp_path / "other")
    other.root.mkdir()
    restored = Journal(other)
    write(restored, "train", range(1))  # of a start that did not get far
    restored.restore_stage("train", stage)
    assert units(other, "train") == ([0, 1], [0, 0, 1, 1])
    assert units(other, "distil") == ([], [])


def test_numbers_that_json_lacks_are_refused(directory: RunDirectory) -> None:
    journal = Journal(directory)
    record = ProgressRecord(
        stage="train", index=0, total=1, seconds=1.0, values={"loss": float("nan")}
    )
    with pytest.raises(ValueError, match="JSON"):
        journal.progress(record)
    assert directory.rounds.read_text() == ""


def test_a_journal_that_is_gone_is_not_begun_anew(directory: RunDirectory, tmp_path: Path) -> None:
    """What it held would be missing from the run's report without a word."""
    journal = Journal(directory)
    write(journal, "train", range(2))
    directory.rounds.unlink()
    with pytest.raises(RunDirectoryError, match=r"cannot write .*rounds\.jsonl: No such file"):
        write(journal, "train", range(2, 3))
    with pytest.raises(RunDirectoryError, match=r"cannot read .*rounds\.jsonl: No such file.* put"):
        journal.save_stage("train", tmp_path)
