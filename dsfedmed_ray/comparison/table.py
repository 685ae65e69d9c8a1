"""The comparison of runs as two tables: each method's means, and its differences pair by pair."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from dsfedmed_ray.comparison.pairing import (
    Result,
    Results,
    Spread,
    choose_reference,
    describe,
    differences,
    read_results,
)
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.summary import MEAN
from dsfedmed_ray.units import format_bytes

UNKNOWN = "–"


def print_comparison(
    run_dirs: Sequence[Path], console: Console, *, reference: str | None = None
) -> None:
    """Prints what finished runs found, side by side.

    Args:
        run_dirs: at least one; a run's own baselines count as methods too.
        console: where to.
        reference: the method that the others are compared with; None takes ``fedavg``, or the
            first method where there is no such run.

    Raises:
        ConfigurationError: no run is given, two are the same, or the reference is unknown.
        RunDirectoryError: a run has no whole summary.
    """
    if not run_dirs:
        raise ConfigurationError("no run to compare; give at least one run directory")
    results = read_results(run_dirs)
    reference = choose_reference(results, reference)
    console.print(means_table(results))
    if len(results) > 1:
        console.print(differences_table(results, reference))


def means_table(results: Results) -> Table:
    """One row a method: mean and standard deviation over its runs, unseen site and seen sites."""
    table = _table("Lightweight models, mean and standard deviation over runs")
    headings = ("runs", "Dice unseen", "IoU unseen", "HD95 px unseen", "Dice seen")
    table.add_column("method", overflow="fold")
    for heading in (*headings, "bytes a client", "ms an image"):
        table.add_column(heading, justify="right")
    for method, settings in results.items():
        runs = list(settings.values())
        unseen = [run.groups["unseen"][MEAN] for run in runs if "unseen" in run.groups]
        table.add_row(
            method,
            str(len(runs)),
            _spread((scores["dice"] for scores in unseen), 3),
            _spread((scores["iou"] for scores in unseen), 3),
            _spread((scores["hd95_px"] for scores in unseen), 1),
            _spread((run.groups["seen"][MEAN]["dice"] for run in runs), 3),
            _known(runs, lambda run: run.per_client_bytes, format_bytes),
            _known(runs, lambda run: run.inference_ms, "{:.1f}".format),
        )
    return table


def differences_table(results: Results, reference: str) -> Table:
    """One row a pair, one column a method: points of Dice above the reference, then their mean."""
    others = {name: settings for name, settings in results.items() if name != reference}
    points = {name: differences(runs, results[reference]) for name, runs in others.items()}
    table = _table(f"Points of Dice above {reference}, same data, unseen site and seed")
    table.add_column("")
    for name in others:
        table.add_column(name, justify="right")
    for setting in sorted({setting for found in points.values() for setting in found}):
        cells = (_signed(found.get(setting)) for found in points.values())
        table.add_row(describe(setting), *cells)
    table.add_section()
    spreads = [Spread(tuple(found.values())) if found else None for found in points.values()]
    means = (None if spread is None else spread.mean for spread in spreads)
    table.add_row("mean", *map(_signed, means), style="bold")
    table.add_row("standard deviation", *(_deviation(spread) for spread in spreads))
    return table


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )


def _spread(values: Iterable[float], digits: int) -> str:
    found = tuple(values)
    if not found:
        return UNKNOWN
    spread = Spread(found)
    if spread.deviation is None:
        return f"{spread.mean:.{digits}f}"
    return f"{spread.mean:.{digits}f} ±{spread.deviation:.{digits}f}"


def _known(
    runs: Sequence[Result], find: Callable[[Result], float | None], write: Callable[[float], str]
) -> str:
    found = tuple(value for value in map(find, runs) if value is not None)
    return write(Spread(found).mean) if found else UNKNOWN


def _signed(points: float | None) -> str:
    return UNKNOWN if points is None else f"{points:+.1f}"


def _deviation(spread: Spread | None) -> str:
    deviation = None if spread is None else spread.deviation
    return UNKNOWN if deviation is None else f"{deviation:.1f}"
