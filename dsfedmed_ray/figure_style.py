"""What all figures share: colours, lines, and files that the same numbers give again."""

from typing import Any

INK, MUTED, HAIRLINE = "#1b1f24", "#69727c", "#dfe2dd"
ACCENT, ACCENT_LIGHT = "#0b6e6a", "#a9cfcb"

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.edgecolor": HAIRLINE,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": HAIRLINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.fonttype": "none",
    "svg.hashsalt": "dsfedmed",
}
"""For ``matplotlib.rc_context``; without a grid."""

NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
"""Of an SVG: the same numbers give the same bytes, and the file names no address."""
