"""A study's results as files: JSON for programs, CSV for spreadsheets, a table for the terminal."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.run_directory import write_atomically, write_json
from dsfedmed_ray.scaling.cost_model import CostModel, HeldOut
from dsfedmed_ray.scaling.estimates import Estimate, PointRow
from dsfedmed_ray.scaling.grid import GridPoint
from dsfedmed_ray.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """A finished study.

    Attributes:
        name: of the study.
        num_cpus: of the machine that it ran on.
        rows: one a grid point.
        cost_model: fitted, or the line that says why there is none.
    """

    name: str
    num_cpus: int
    rows: Sequence[PointRow]
    cost_model: CostModel | str


def write_results(result: StudyResult, json_file: Path, csv_file: Path) -> None:
    """Writes both files, each whole."""
    model = result.cost_model
    fitted = isinstance(model, CostModel)
    write_json(
        json_file,
        {
            "name": result.name,
            "num_cpus": result.num_cpus,
            "rows": [asdict(row) for row in result.rows],
            "cost_model": _model_content(model) if isinstance(model, CostModel) else None,
            "no_cost_model": None if fitted else model,
        },
    )
    write_atomically(csv_file, lambda path: _write_csv(result.rows, path))


def read_cost_model(json_file: Path) -> CostModel:
    """The cost model of a finished study.

    Raises:
        RunDirectoryError: the file is not a study's, or the study has no model.
    """
    try:
        content = json.loads(json_file.read_text(encoding="utf-8"))
        model, why_not = content["cost_model"], content["no_cost_model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"{json_file.parent} holds no finished scaling study; give --from the run directory "
            "of a finished 'dsfedmed scale'"
        ) from error
    if model is None:
        raise RunDirectoryError(f"{json_file.parent} has no cost model: {why_not}")
    del model["median_error"], model["worst_error"]
    held_out = [
        HeldOut(**{**item, "point": GridPoint(**item["point"])}) for item in model["held_out"]
    ]
    return CostModel(**{**model, "held_out": held_out})


def newest_study(runs: Path) -> Path:
    """The folder of the study that was finished last and has a cost model.

    Raises:
        RunDirectoryError: there is none.
    """
    files = sorted(runs.glob("*/results.json"), key=lambda path: path.stat().st_mtime)
    for file in reversed(files):
        try:
            read_cost_model(file)
        except RunDirectoryError:  # a study of another kind, or one without a model
            continue
        return file.parent
    raise RunDirectoryError(
        f"{runs}/ holds no finished scaling study with a cost model; run "
        "dsfedmed scale experiment=scale_workers, or give --from its run directory"
    )


def print_results(result: StudyResult, folder: Path, console: "Console") -> None:
    """Prints two tables, time and resources, the cost model and where the files are."""
    console.print(_table(result, f"{result.name}, {result.num_cpus} CPUs", _TIMES))
    console.print(_table(result, "memory at most, bytes and processor time a round", _RESOURCES))
    console.print(_model_words(result.cost_model), highlight=False)
    console.print(f"results        {folder}", highlight=False)


def _table(result: StudyResult, title: str, columns: "_Columns") -> "Table":
    from rich.table import Table

    shown = {
        name: cell for name, cell in {**_POINT, **columns}.items() if any(map(cell, result.rows))
    }
    table = Table(title=title, title_justify="left")
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.rows:
        table.add_row(*(cell(row) for cell in shown.values()))
    return table


def _interval(value: Estimate) -> str:
    width = "" if value.half_width is None else f" ± {value.half_width:.2g}"
    return f"{value.mean:.3g}{width}"


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.0%}"


def _bytes(amount: int | None) -> str:
    return "" if amount is None else format_bytes(amount)


_Columns = dict[str, Callable[[PointRow], str]]

_POINT: _Columns = {
    "population": lambda row: str(row.point.population or ""),
    "clients": lambda row: str(row.point.clients),
    "workers": lambda row: str(row.point.workers),
    "gpus": lambda row: str(row.point.gpus or ""),
}
_TIMES: _Columns = {
    "s/round": lambda row: _interval(row.seconds),
    "fastest": lambda row: f"{row.fastest_seconds:.3g}",
    "clients/s": lambda row: _interval(row.clients_per_second),
    "strong": lambda row: _percent(row.strong_efficiency),
    "weak": lambda row: _percent(row.weak_efficiency),
    "simulated s": lambda row: _interval(row.simulated_seconds) if row.simulated_seconds else "",
    "dice": lambda row: f"{row.dice.mean:.3f}" if row.dice else "",
}
_RESOURCES: _Columns = {
    "driver s": lambda row: _interval(row.driver_seconds),
    "wire": lambda row: format_bytes(row.round_bytes),
    "driver": lambda row: _bytes(row.memory.driver_peak_rss_bytes),
    "worker": lambda row: _bytes(row.memory.worker_peak_rss_bytes),
}
"""Each table fits 80 columns; a column without a value in any row is left out."""


def _model_words(model: CostModel | str) -> str:
    if isinstance(model, str):
        return f"no cost model: {model}"
    kind = "GPUs" if model.on_gpus else "workers"
    wire = f" + {model.c_seconds_per_byte:.3g} x bytes"
    return (
        f"seconds = {model.a_seconds:.3g} + {model.b_seconds_per_client:.3g} x clients/{kind}{wire}"
        f"; error on held-out points: median {model.median_error:.1%}, "
        f"worst {model.worst_error:.1%}"
    )


def _model_content(model: CostModel) -> dict[str, Any]:
    errors = {"median_error": model.median_error, "worst_error": model.worst_error}
    return {**asdict(model), **errors}


def _write_csv(rows: Sequence[PointRow], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as target:
        flat = [_flat(asdict(row)) for row in rows]
        names = list(dict.fromkeys(name for row in flat for name in row))
        writer = csv.DictWriter(target, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """One level: ``seconds.mean`` is a column; the point's and the memory's names stand alone."""
    row: dict[str, Any] = {}
    for name, value in values.items():
        if not isinstance(value, dict):
            row[prefix + name] = value
        elif name in ("point", "memory"):
            row.update(value)
        else:
            row.update(_flat(value, f"{name}."))
    return row
