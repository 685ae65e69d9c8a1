"""The result table of the report page: one row a model, one column a site."""

from collections.abc import Mapping
from html import escape

from dsfedmed_ray.report.markup import section
from dsfedmed_ray.report.rows import Group, ResultRow, result_rows, seen_sites
from dsfedmed_ray.summary import MEAN, Scores, Summary
from dsfedmed_ray.units import format_bytes

MAX_SITES = 12
"""With more seen sites than this the page shows their mean alone."""

Column = tuple[Group, str]
"""Group and site, or ``"mean"``."""


def results(summary: Summary) -> str:
    """Dice, IoU and HD95 of every model on every site, bytes and milliseconds."""
    rows, columns = result_rows(summary), _columns(summary)
    best = {column: _best_dice(rows, column) for column in columns}
    heads = "".join(
        f'<th class="{group}">{escape(label)}</th>' for (group, _), label in columns.items()
    )
    body = "".join(_row(row, best) for row in rows)
    return section(
        "Results",
        '<p class="note">Dice; below it IoU and the 95th percentile of the Hausdorff distance in '
        "pixels. The best Dice of a column is in colour.</p>"
        f'<div class="scroll"><table><thead><tr><th></th>{heads}<th>bytes a client</th>'
        f"<th>ms an image</th></tr></thead><tbody>{body}</tbody></table></div>",
    )


def _columns(summary: Summary) -> dict[Column, str]:
    """The heading of each column."""
    sites, unseen = seen_sites(summary), summary["split"]["unseen_site"]
    columns: dict[Column, str] = {}
    for site in sites if len(sites) <= MAX_SITES else ():
        columns["seen", site] = _breakable(site)
    columns["seen", MEAN] = f"mean of {len(sites)} seen"
    if unseen is not None:
        columns["unseen", MEAN] = f"{_breakable(unseen)}, unseen"
    return columns


def _breakable(name: str) -> str:
    """Lets a browser break a long name after its underscores."""
    return name.replace("_", "_\u200b")


def _best_dice(rows: list[ResultRow], column: Column) -> float:
    found = (row.scores(*column) for row in rows)
    return max((scores["dice"] for scores in found if scores is not None), default=0.0)


def _row(row: ResultRow, best: Mapping[Column, float]) -> str:
    cells = "".join(
        _cell(row.scores(*column), column[0], is_best=_is_best(row, column, dice))
        for column, dice in best.items()
    )
    size = "–" if row.per_client_bytes is None else format_bytes(row.per_client_bytes)
    time = "–" if row.inference_ms is None else f"{row.inference_ms:.1f}"
    start = '<tr class="own">' if row.is_own else "<tr>"
    return f"{start}<th>{escape(row.name)}</th>{cells}<td>{size}</td><td>{time}</td></tr>"


def _is_best(row: ResultRow, column: Column, best_dice: float) -> bool:
    scores = row.scores(*column)
    return scores is not None and scores["dice"] == best_dice


def _cell(scores: Scores | None, group: Group, *, is_best: bool) -> str:
    if scores is None:
        return f'<td class="{group}">–</td>'
    classes = f"{group} best" if is_best else group
    return (
        f'<td class="{classes}">{scores["dice"]:.3f}'
        f"<small>{scores['iou']:.3f} · {scores['hd95_px']:.1f}</small></td>"
    )
