"""Curves of validation Dice over rounds and epochs."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsfedmed_ray.figure_style import ACCENT, ACCENT_LIGHT, INK, NO_METADATA, STYLE
from dsfedmed_ray.progress import UNITS
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.run_directory import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE_STYLE = STYLE | {
    "axes.grid": True,
    "axes.grid.axis": "y",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}

Curve = tuple[list[int], list[float]]


def dice_curves(records: Sequence[ProgressRecord]) -> dict[str, dict[str, Curve]]:
    """Finds what can be drawn: values named ``dice``, or ``..._dice``, or those of sites.

    Args:
        records: the lines of ``rounds.jsonl``.

    Returns:
        By stage and value's name, the numbers of rounds or epochs from 1, and Dice. Stages
        without Dice are left out. ``NAME/SITE`` is the curve of one site.
    """
    stages: dict[str, dict[str, Curve]] = {}
    for record in records:
        for name, value in record.values.items():
            if name.partition("/")[0].endswith("dice"):
                curves = stages.setdefault(record.stage, {})
                numbers, values = curves.setdefault(name, ([], []))
                numbers.append(record.index + 1)
                values.append(value)
    return stages


def with_a_course(stages: dict[str, dict[str, Curve]]) -> dict[str, dict[str, Curve]]:
    """The stages that were judged more than once; all of them where none was."""
    several = {
        stage: curves
        for stage, curves in stages.items()
        if any(len(numbers) > 1 for numbers, _ in curves.values())
    }
    return several or stages


def draw_rounds(records: Sequence[ProgressRecord], path: Path) -> str | None:
    """Draws one panel a stage, writes the picture and returns it as SVG.

    Args:
        records: the lines of ``rounds.jsonl``.
        path: of the PNG file.

    Returns:
        An ``<svg>`` element whose texts inherit the page's font; None, and no file, where no
        stage measured Dice.
    """
    stages = with_a_course(dice_curves(records))
    if not stages:
        return None
    from matplotlib import rc_context

    with rc_context(PAGE_STYLE):
        figure = _figure(stages)
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=200, format="png"))
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata=NO_METADATA)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _figure(stages: dict[str, dict[str, Curve]]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.1), layout="constrained")
    widths = [
        max(3, max(len(numbers) for numbers, _ in curves.values())) for curves in stages.values()
    ]
    panels = figure.subplots(
        1, len(stages), sharey=True, squeeze=False, width_ratios=[width**0.5 for width in widths]
    )[0]
    for panel, (stage, curves) in zip(panels, stages.items(), strict=True):
        _draw_stage(panel, stage, curves)
    panels[0].set_ylabel("validation Dice")
    return figure


def _draw_stage(panel: "Axes", stage: str, curves: dict[str, Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, (numbers, values) in curves.items():
        if "/" in name:
            panel.plot(numbers, values, color=ACCENT_LIGHT, linewidth=0.8, zorder=1.5)
    means = [(name, curve) for name, curve in curves.items() if "/" not in name]
    means.sort(key=lambda item: item[1][1][-1])
    for rank, (name, (numbers, values)) in enumerate(means):
        is_foundation = "foundation" in name or "foundation" in stage
        color, dashes = (INK, (4, 2)) if is_foundation else (ACCENT, (None, None))
        marker = "o" if len(numbers) == 1 else None
        panel.plot(numbers, values, color=color, linewidth=1.8, dashes=dashes, marker=marker)
        # Two last values may be close: the lower one stands below its line, the higher above.
        below_or_above = "center" if len(means) == 1 else "top" if rank == 0 else "bottom"
        panel.annotate(
            f"{values[-1]:.3f}",
            (numbers[-1], values[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            color=color,
            va=below_or_above,
            annotation_clip=False,
        )
    panel.set_title(stage.replace("_", " "), loc="left", color=INK, fontsize=10, fontweight="bold")
    panel.set_xlabel(UNITS.get(stage, "step"))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    panel.margins(x=0.03)
