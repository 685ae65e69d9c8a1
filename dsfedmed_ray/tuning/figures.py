"""A study's two figures: every trial as a line through its values, and each setting's effect."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsfedmed_ray.figure_style import ACCENT, HAIRLINE, INK, MUTED, STYLE
from dsfedmed_ray.run_directory import write_atomically
from dsfedmed_ray.tuning.distributions import Distribution
from dsfedmed_ray.tuning.results import StudyResult, TrialResult, short_names
from dsfedmed_ray.tuning.space import TuneSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "viridis"
MIN_TRIALS_FOR_RANK = 5
"""With fewer trials a rank correlation says nothing."""


def draw_study(result: StudyResult, space: TuneSpace, folder: Path) -> list[Path]:
    """Writes ``parallel_coordinates.png`` and ``sensitivity.png``.

    Args:
        result: trials without a score are left out.
        space: gives each axis its scale.
        folder: receives the files.

    Returns:
        The files; none where no trial has a score.
    """
    trials = [trial for trial in result.trials if trial.score is not None]
    if not trials:
        return []
    from matplotlib import rc_context

    with rc_context(STYLE):
        figures = {
            "parallel_coordinates.png": _parallel_coordinates(trials, space, result.metric),
            "sensitivity.png": _sensitivity(trials, space, result),
        }
        for name, figure in figures.items():
            write_atomically(
                folder / name,
                lambda path, figure=figure: figure.savefig(path, dpi=200, format="png"),  # type: ignore[misc]
            )
    return [folder / name for name in figures]


def heights(distribution: Distribution, values: Sequence[Any]) -> list[float]:
    """Where values stand on an axis of their distribution, 0 to 1.

    A range's bounds are 0 and 1, on a logarithmic scale for ``loguniform``; choices stand evenly
    in their order.
    """
    if not distribution.is_range:
        steps = max(1, len(distribution.values) - 1)
        order = [repr(value) for value in distribution.values]
        return [order.index(repr(value)) / steps for value in values]
    low, high = (float(bound) for bound in distribution.values[:2])
    numbers = np.asarray(values, dtype=float)
    if distribution.is_logarithmic:
        low, high, numbers = np.log(low), np.log(high), np.log(numbers)
    return [float(x) for x in (numbers - low) / (high - low)]


def rank_correlation(values: Sequence[float], scores: Sequence[float]) -> float | None:
    """Spearman's rank correlation in [-1, 1]; None where either does not vary."""
    if len(set(values)) < 2 or len(set(scores)) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(values, scores).statistic)


def _parallel_coordinates(trials: list[TrialResult], space: TuneSpace, metric: str) -> "Figure":
    from matplotlib.figure import Figure

    paths = list(space.space)
    scores = np.array([trial.score for trial in trials], dtype=float)
    span = float(scores.max() - scores.min()) or 1.0
    shades = (scores - scores.min()) / span
    columns = [
        heights(space.space[path], [trial.values[path] for trial in trials]) for path in paths
    ]
    lines = np.column_stack([*columns, shades])
    figure = Figure(figsize=(1.6 + 1.5 * len(paths), 3.8), layout="constrained")
    axes = figure.subplots()
    for row in np.argsort(scores):  # the best line is drawn last
        axes.plot(lines[row], color=_colour(shades[row]), linewidth=1.4, alpha=0.9)
    names = short_names(paths)
    labels = [names[path].replace("_", "\n") for path in paths]
    axes.set_xticks(range(len(paths) + 1), [*labels, metric.replace("_", "\n")])
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.12)
    axes.spines[["left", "bottom"]].set_visible(False)
    for column, path in enumerate(paths):
        _draw_axis(axes, column, _marks(space.space[path]))
    _draw_axis(axes, len(paths), [(0.0, f"{scores.min():.3f}"), (1.0, f"{scores.max():.3f}")])
    return figure


def _draw_axis(axes: "Axes", column: int, marks: list[tuple[float, str]]) -> None:
    axes.axvline(column, color=HAIRLINE, linewidth=1.0, zorder=0)
    for height, text in marks:
        side, where = ((0, 4), "bottom") if height == 1.0 else ((0, -4), "top")
        if 0.0 < height < 1.0:
            side, where = (4, 0), "center"
        axes.annotate(
            text,
            (column, height),
            xytext=side,
            textcoords="offset points",
            va=where,
            ha="left" if 0.0 < height < 1.0 else "center",
            color=MUTED,
            fontsize=8,
        )


def _marks(distribution: Distribution) -> list[tuple[float, str]]:
    shown = distribution.values[:2] if distribution.is_range else distribution.values
    texts = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in shown]
    return list(zip(heights(distribution, shown), texts, strict=True))


def _colour(shade: float) -> Any:
    from matplotlib import colormaps

    return colormaps[COLOURS](0.95 * shade)


def _sensitivity(trials: list[TrialResult], space: TuneSpace, result: StudyResult) -> "Figure":
    from matplotlib.figure import Figure

    paths = list(space.space)
    num_columns = min(4, len(paths))
    num_rows = -(-len(paths) // num_columns)
    figure = Figure(figsize=(2.6 * num_columns + 0.6, 2.4 * num_rows + 0.2), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False).flatten()
    names = short_names(paths)
    for panel, path in zip(panels, paths, strict=False):
        _draw_effect(panel, path, names[path], trials, space.space[path])
        if result.baseline.score is not None:
            panel.axhline(result.baseline.score, color=MUTED, linewidth=0.8, dashes=(4, 3))
    for panel in panels[len(paths) :]:
        panel.set_visible(False)
    for row in range(num_rows):
        panels[row * num_columns].set_ylabel(result.metric.replace("_", " "))
    return figure


def _draw_effect(
    panel: "Axes", path: str, name: str, trials: list[TrialResult], distribution: Distribution
) -> None:
    values = [trial.values[path] for trial in trials]
    scores = [trial.score or 0.0 for trial in trials]
    places = heights(distribution, values)
    whole = [trial.status == "finished" for trial in trials]
    for finished, colour in ((True, ACCENT), (False, HAIRLINE)):
        chosen = [i for i, is_finished in enumerate(whole) if is_finished == finished]
        panel.scatter([places[i] for i in chosen], [scores[i] for i in chosen], s=16, color=colour)
    marks = _marks(distribution)
    panel.set_xticks([place for place, _ in marks], [text for _, text in marks])
    panel.set_xlim(-0.08, 1.08)
    panel.set_xlabel(name.replace("_", " "))
    correlation = rank_correlation(places, scores)
    if correlation is not None and len(trials) >= MIN_TRIALS_FOR_RANK:
        panel.set_title(f"rank correlation {correlation:+.2f}", loc="left", fontsize=8, color=INK)
