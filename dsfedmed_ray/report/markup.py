"""Pieces of HTML that the parts of the page share."""

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path


def section(title: str, body: str) -> str:
    """A titled part of the page.

    Args:
        title: plain text.
        body: HTML.
    """
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def bars(amounts: Mapping[str, Sequence[float]], write: Callable[[float], str]) -> str:
    """Horizontal bars on one scale, each of one or two parts.

    Args:
        amounts: by label; underscores are written as spaces.
        write: how a bar's sum is written.
    """
    longest = max((sum(parts) for parts in amounts.values()), default=0) or 1
    rows = []
    for label, parts in amounts.items():
        pieces = "".join(
            f'<i class="part{rank}" style="width:{100 * part / longest:.2f}%"></i>'
            for rank, part in enumerate(parts)
            if part
        )
        rows.append(
            f"<span>{escape(label.replace('_', ' '))}</span>"
            f'<span class="track">{pieces}</span>'
            f'<span class="amount">{escape(write(sum(parts)))}</span>'
        )
    return f'<div class="bars">{"".join(rows)}</div>'


def picture(path: Path, caption: str) -> str:
    """A PNG file, embedded; nothing if the run has none.

    Args:
        path: of the file.
        caption: plain text.
    """
    if not path.exists():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
