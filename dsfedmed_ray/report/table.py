"""The closing table of a run, for a terminal."""

from collections.abc import Iterator
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from dsfedmed_ray.report.rows import (
    Group,
    ResultRow,
    clocked,
    quality_phrases,
    result_rows,
    seen_sites,
)
from dsfedmed_ray.run_directory import RunDirectory
from dsfedmed_ray.summary import MEAN, Scores, Summary, read_summary
from dsfedmed_ray.units import format_bytes, format_seconds

MAX_SITES = 8
"""With more seen sites than this the table shows their mean alone."""

UNKNOWN = "–"

Metric = Literal["dice", "iou", "hd95_px"]
BLOCKS: tuple[tuple[str, Metric, int], ...] = (
    ("Dice", "dice", 3),
    ("IoU", "iou", 3),
    ("HD95 px", "hd95_px", 1),
)
"""Heading, key and digits of each block of lines."""


def print_table(run_dir: RunDirectory, console: Console) -> None:
    """Prints a finished run's results and where it lies.

    Raises:
        RunDirectoryError: the run has no whole summary.
    """
    summary = read_summary(run_dir.summary)
    console.print(result_table(summary))
    phrases = quality_phrases(summary)
    if phrases:
        _print_dim(console, f"synthetic set  {', '.join(phrases)}")
    simulated = summary.get("simulated_seconds")
    if simulated:
        time = format_seconds(sum(simulated.values()))
        _print_dim(console, f"virtual clock  {time} of {clocked(simulated)}")
    took = format_seconds(summary["wall_seconds"]["total"])
    _print_dim(console, f"run directory  {run_dir.root}  (took {took})")


def result_table(summary: Summary) -> Table:
    """One column a model; Dice, IoU and HD95 site by site, then bytes and milliseconds."""
    rows = result_rows(summary)
    table = Table(
        title=f"{summary['data']}, seed {summary['seed']}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_column(row.name, justify="right", min_width=8)
    for heading, metric, digits in BLOCKS:
        table.add_row(heading, style="bold")
        for label, group, site in _site_lines(summary):
            cells = [_cell(row.scores(group, site), metric, digits) for row in rows]
            table.add_row(f"  {label}", *cells, style="cyan" if group == "unseen" else "")
        table.add_section()
    table.add_row("bytes a client", *(_size(row) for row in rows))
    table.add_row("ms an image", *(_time(row) for row in rows))
    return table


def _site_lines(summary: Summary) -> Iterator[tuple[str, Group, str]]:
    """Label, group and site of each line of a block."""
    sites, unseen = seen_sites(summary), summary["split"]["unseen_site"]
    for site in sites if len(sites) <= MAX_SITES else ():
        yield site, "seen", site
    yield f"mean of {len(sites)} seen", "seen", MEAN
    if unseen is not None:
        yield f"{unseen}, unseen", "unseen", MEAN


def _cell(scores: Scores | None, metric: Metric, digits: int) -> str:
    return UNKNOWN if scores is None else f"{scores[metric]:.{digits}f}"


def _size(row: ResultRow) -> str:
    return UNKNOWN if row.per_client_bytes is None else format_bytes(row.per_client_bytes)


def _time(row: ResultRow) -> str:
    return UNKNOWN if row.inference_ms is None else f"{row.inference_ms:.1f}"


def _print_dim(console: Console, text: str) -> None:
    console.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)
