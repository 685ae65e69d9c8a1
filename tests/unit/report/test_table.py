"""The closing table, read as text."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.report.rows import method_name
from dsfedmed_ray.report.table import print_table, result_table
from dsfedmed_ray.run_directory import RunDirectory
from dsfedmed_ray.summary import Summary


def lines_of(summary: Summary) -> list[list[str]]:
    stream = io.StringIO()
    Console(file=stream, width=80).print(result_table(summary))
    return [line.split() for line in stream.getvalue().splitlines() if line.strip()]


def test_every_number_stands_in_its_column(make_summary: Callable[..., Summary]) -> None:
    """Columns: DSFedMed, FedAvg, foundation. Dice 0.75 is IoU 0.75 / 1.25 = 0.6, HD95 20 / 4."""
    lines = lines_of(make_summary())
    start = lines.index(["Dice"])
    assert lines[start + 1 : start + 5] == [
        ["north", "0.800", "0.790", "0.820"],
        ["south", "0.900", "0.910", "0.880"],
        ["mean", "of", "2", "seen", "0.850", "0.850", "0.850"],
        ["east,", "unseen", "0.750", "0.710", "0.790"],
    ]
    assert ["east,", "unseen", "0.600", "0.550", "0.653"] in lines
    assert ["east,", "unseen", "5.0", "5.8", "4.2"] in lines
    assert ["bytes", "a", "client", "15.0", "MB", "–", "–"] in lines
    assert ["ms", "an", "image", "2.5", "–", "200.0"] in lines


def test_without_unseen_site(make_summary: Callable[..., Summary]) -> None:
    summary = make_summary()
    summary["split"]["unseen_site"] = None
    assert not any("unseen" in line for line in lines_of(summary))


def test_many_sites_are_left_to_the_report(make_summary: Callable[..., Summary]) -> None:
    summary = make_summary()
    seen = summary["metrics"]["lightweight"]["seen"]
    mean = seen.pop("mean")
    seen.update({f"site_{index}": mean for index in range(9)}, mean=mean)
    lines = lines_of(summary)
    assert ["mean", "of", "11", "seen", "0.850", "0.850", "0.850"] in lines
    assert not any("north" in line for line in lines)


def test_what_stands_below_the_table(finished_run: RunDirectory) -> None:
    stream = io.StringIO()
    print_table(finished_run, Console(file=stream, width=80))
    synthetic, directory = stream.getvalue().splitlines()[-2:]
    assert synthetic == (
        "synthetic set  TSTR ratio 0.97, at least 0.91, mask agreement 0.84, KID 0.021, "
        "memorisation ratio 1.12 (no flag)"
    )
    assert directory == f"run directory  {finished_run.root}  (took 3 min 05 s)"


def test_no_generator(tmp_path: Path, make_summary: Callable[..., Summary]) -> None:
    run = RunDirectory(tmp_path)
    run.summary.write_text(json.dumps({**make_summary("fedavg"), "generator": None}))
    stream = io.StringIO()
    print_table(run, Console(file=stream))
    assert "synthetic" not in stream.getvalue()


def test_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="give the directory of a finished run"):
        print_table(RunDirectory(tmp_path), Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("dsfedmed", "DSFedMed"),
        ("fedavg_plus_synthetic", "FedAvg plus synthetic"),
        ("fednnunet", "FednnU-Net"),
        ("dsfedmed_sam_b_unet", "DSFedMed SAM b U-Net"),
        ("something", "something"),
    ],
)
def test_method_names(method: str, name: str) -> None:
    assert method_name(method) == name
