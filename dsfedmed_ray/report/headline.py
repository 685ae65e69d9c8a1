"""The head of the report page: what the run found, before any table."""

from html import escape

from dsfedmed_ray.report.rows import (
    Group,
    ResultRow,
    clocked,
    method_name,
    result_rows,
    seen_sites,
)
from dsfedmed_ray.summary import MEAN, Summary
from dsfedmed_ray.units import format_bytes, format_seconds


def headline(summary: Summary) -> str:
    """One sentence with the Dice that counts, its distance to baselines, and the key figures."""
    rows, unseen = result_rows(summary), summary["split"]["unseen_site"]
    group: Group = "seen" if unseen is None else "unseen"
    if unseen is None:
        place = f"the test images of {len(seen_sites(summary))} sites"
    else:
        place = f"{unseen}, a site it never trained on"
    kicker = f"{method_name(summary['method'])} on {summary['data']}, seed {summary['seed']}"
    return (
        f'<header><p class="kicker">{escape(kicker)}</p>'
        f"<h1><em>{_dice(rows[0], group)} Dice</em> on {escape(place)}</h1>"
        f"{_comparison(rows, group)}{_figures(summary, rows, group)}</header>"
    )


def _dice(row: ResultRow, group: Group) -> str:
    scores = row.scores(group, MEAN)
    return "–" if scores is None else f"{scores['dice']:.3f}"


def _comparison(rows: list[ResultRow], group: Group) -> str:
    own = rows[0].scores(group, MEAN)
    phrases = []
    for row in rows:
        theirs = row.scores(group, MEAN)
        if row.is_own or own is None or theirs is None:
            continue
        points = 100 * (own["dice"] - theirs["dice"])
        phrases.append(f"{_distance(points)} {escape(row.name)}")
    if not phrases:
        return ""
    sentence = ", ".join(phrases)
    return f'<p class="lead">{sentence[0].upper()}{sentence[1:]}.</p>'


def _distance(points: float) -> str:
    if abs(points) < 0.05:  # what one decimal cannot tell apart
        return "the same as"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"


def _figures(summary: Summary, rows: list[ResultRow], group: Group) -> str:
    figures = {}
    if group == "unseen":
        figures["Dice on seen sites"] = _dice(rows[0], "seen")
    for row in rows[1:]:
        if row.is_own:
            figures[f"Dice of the foundation model, {group}"] = _dice(row, group)
    figures["travelled a client"] = format_bytes(summary["communication"]["per_client_bytes"])
    if rows[0].inference_ms is not None:
        figures["an image at inference"] = f"{rows[0].inference_ms:.1f} ms"
    simulated = summary.get("simulated_seconds")
    if simulated:
        time = format_seconds(sum(simulated.values()))
        figures[f"of {clocked(simulated)} on the virtual clock"] = time
    figures["the whole run"] = format_seconds(summary["wall_seconds"]["total"])
    cells = (
        f'<div><span class="value">{escape(value)}</span>{escape(name)}</div>'
        for name, value in figures.items()
    )
    return f'<div class="figures">{"".join(cells)}</div>'
