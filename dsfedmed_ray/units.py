"""How sizes and times are written for people."""

BYTES_PER_MB = 2**20
"""The paper's MB: 2^20 bytes."""


def format_bytes(num_bytes: float) -> str:
    """Writes a size with a unit, each 1,024 of the one before: ``41.2 MB``."""
    size = float(num_bytes)
    for unit in ("B", "KB", "MB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GB"


def format_seconds(seconds: float) -> str:
    """Writes a duration: ``12.4 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
