"""A study's figures: what grows with what, and the cost model beside what was measured."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsfedmed_ray.figure_style import INK, MUTED, NO_METADATA, STYLE
from dsfedmed_ray.run_directory import write_atomically
from dsfedmed_ray.scaling.cost_model import CostModel
from dsfedmed_ray.scaling.estimates import PointRow
from dsfedmed_ray.scaling.results import StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = ("#0b6e6a", "#c2571a", "#4b5fa8", "#8a6d1f", "#7a3e76")
AXES = ("population", "workers", "clients", "gpus")
"""What a figure's horizontal axis may be: the first of these that the study varies."""
GIB = 2**30


def draw_study(result: StudyResult, folder: Path) -> list[Path]:
    """Writes ``scaling`` and, where there is a cost model, ``cost_model``, each as PNG and SVG.

    Returns:
        The files.
    """
    from matplotlib import rc_context

    with rc_context(STYLE | {"axes.grid": True}):
        figures = {"scaling": _scaling(result)}
        if isinstance(result.cost_model, CostModel):
            figures["cost_model"] = _cost_model(result.cost_model)
        files = []
        for name, figure in figures.items():
            for kind in ("png", "svg"):
                files.append(folder / f"{name}.{kind}")
                write_atomically(files[-1], lambda path, f=figure, k=kind: _save(f, k, path))  # type: ignore[misc]
    return files


def _save(figure: "Figure", kind: str, path: Path) -> None:
    metadata = NO_METADATA if kind == "svg" else None
    figure.savefig(path, dpi=140, format=kind, metadata=metadata)


def _scaling(result: StudyResult) -> "Figure":
    from matplotlib.figure import Figure

    axis = _axis(result.rows)
    more = {name: draw for name, (has, draw) in _MORE.items() if any(map(has, result.rows))}
    num_panels = 3 + len(more)
    figure = Figure(figsize=(10 * num_panels / 3, 3.2), layout="constrained")
    panels = list(figure.subplots(1, num_panels))
    seconds, throughput, memory = panels[:3]
    for colour, (label, rows) in zip(_colours(), _lines(result.rows, axis), strict=False):
        places = [_place(row, axis) for row in rows]
        for panel, values in (
            (seconds, [row.seconds for row in rows]),
            (throughput, [row.clients_per_second for row in rows]),
        ):
            means, widths = [v.mean for v in values], [v.half_width or 0.0 for v in values]
            panel.errorbar(places, means, widths, color=colour, marker="o", ms=4, label=label)
        fastest = [row.fastest_seconds for row in rows]
        seconds.plot(places, fastest, color=colour, dashes=(1, 2), marker="_", ms=8)
        for name, dashes in (("driver", (None, None)), ("worker", (4, 2))):
            _draw_memory(memory, name, rows, places, colour, dashes)
        for panel, draw in zip(panels[3:], more.values(), strict=True):
            draw(panel, rows, places, colour)
    titles = (
        "seconds a round, dotted: fastest",
        "client-rounds a second",
        "peak resident memory, GiB",
        *more,
    )
    for panel, title in zip(panels, titles, strict=True):
        _finish(panel, title, axis, sorted({_place(row, axis) for row in result.rows}))
    if axis == "clients":
        seconds.set_yscale("log")
    if len({_series(row, axis) for row in result.rows}) > 1:
        throughput.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def _draw_memory(
    panel: "Axes",
    name: str,
    rows: Sequence[PointRow],
    places: Sequence[float],
    colour: str,
    dashes: tuple[float | None, float | None],
) -> None:
    peaks = [getattr(row.memory, f"{name}_peak_rss_bytes") for row in rows]
    known = [(x, peak / GIB) for x, peak in zip(places, peaks, strict=True) if peak is not None]
    if not known:
        return
    panel.plot(*zip(*known, strict=True), color=colour, marker="o", ms=4, dashes=dashes)
    panel.annotate(
        name, known[-1], xytext=(0, 6), textcoords="offset points", ha="right", color=colour
    )


def _draw_efficiency(
    panel: "Axes", rows: Sequence[PointRow], places: Sequence[float], colour: str
) -> None:
    panel.axhline(100.0, color=MUTED, linewidth=0.8)
    for name, dashes in (("strong", (None, None)), ("weak", (4, 2))):
        values = [getattr(row, f"{name}_efficiency") for row in rows]
        known = [(x, 100 * y) for x, y in zip(places, values, strict=True) if y is not None]
        if known:
            panel.plot(*zip(*known, strict=True), color=colour, marker="o", ms=4, dashes=dashes)


def _draw_simulated(
    panel: "Axes", rows: Sequence[PointRow], places: Sequence[float], colour: str
) -> None:
    known = [(x, v) for x, row in zip(places, rows, strict=True) if (v := row.simulated_seconds)]
    if known:
        means, widths = [v.mean for _, v in known], [v.half_width or 0.0 for _, v in known]
        panel.errorbar([x for x, _ in known], means, widths, color=colour, marker="o", ms=4)


_MORE: dict[str, tuple[Callable[[PointRow], bool], Callable[..., None]]] = {
    "efficiency, %, dashed: weak": (
        lambda row: (row.strong_efficiency or row.weak_efficiency) is not None,
        _draw_efficiency,
    ),
    "simulated seconds a round": (
        lambda row: row.simulated_seconds is not None,
        _draw_simulated,
    ),
}
"""Panels by title that a study has where any of its rows has their numbers."""


def _finish(panel: "Axes", title: str, axis: str, places: Sequence[float]) -> None:
    panel.set_title(title, loc="left", color=INK, fontsize=10, fontweight="bold")
    panel.set_xlabel(
        {"population": "clients of the federation", "clients": "clients a round"}.get(axis, axis)
    )
    panel.set_xscale("log")
    if axis in ("workers", "gpus"):
        panel.set_xticks(places, [f"{place:g}" for place in places])
        panel.minorticks_off()
    panel.margins(x=0.1)
    panel.set_ylim(0, 1.15 * panel.get_ylim()[1])


def _cost_model(model: CostModel) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    panel = figure.subplots()
    measured = [item.measured_seconds for item in model.held_out]
    predicted = [item.predicted_seconds for item in model.held_out]
    ends = [0.8 * min(measured), 1.25 * max(measured)]
    panel.plot(ends, ends, color=MUTED, linewidth=0.8)
    panel.scatter(measured, predicted, color=LINES[0], s=18, zorder=3)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("measured, s a round")
    panel.set_ylabel("predicted from the other points, s")
    panel.set_title(
        f"held-out error: median {model.median_error:.1%}, worst {model.worst_error:.1%}",
        loc="left",
        color=INK,
        fontsize=9,
    )
    return figure


def _axis(rows: Sequence[PointRow]) -> str:
    for axis in AXES:
        if len({_place(row, axis) for row in rows}) > 1 and (
            axis != "population" or rows[0].point.population is not None
        ):
            return axis
    return "clients"


def _place(row: PointRow, axis: str) -> float:
    value = getattr(row.point, axis)
    return float(row.point.clients if value is None else value)


def _series(row: PointRow, axis: str) -> tuple[tuple[str, int | None], ...]:
    return tuple((name, getattr(row.point, name)) for name in AXES if name != axis)


def _lines(rows: Sequence[PointRow], axis: str) -> list[tuple[str, list[PointRow]]]:
    """Rows that differ in the axis alone, with the words that tell lines apart."""
    lines: dict[tuple[tuple[str, int | None], ...], list[PointRow]] = {}
    for row in rows:
        lines.setdefault(_series(row, axis), []).append(row)
    varied = {name for name in AXES if len({getattr(row.point, name) for row in rows}) > 1}
    return [
        (
            ", ".join(f"{value} {name}" for name, value in series if name in varied),
            sorted(line, key=lambda row: _place(row, axis)),
        )
        for series, line in lines.items()
    ]


def _colours() -> list[str]:
    return list(LINES) * 4
