"""A trial is a list of Hydra overrides: what is tuned, and how it is written down."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsfedmed_ray.errors import ConfigurationError

NUM_DIGITS = 4
"""Drawn numbers are rounded to so many significant digits before a trial uses them."""


def rounded(value: Any) -> Any:
    """A drawn number as a trial uses it, short enough to be read and typed again."""
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{NUM_DIGITS}g}")
    return value


def overrides_of(values: Mapping[str, Any]) -> list[str]:
    """A trial's values as overrides, ``["method.selection.ratio=0.25"]``, by name."""
    return [f"{path}={_written(rounded(values[path]))}" for path in sorted(values)]


def command_line(overrides: Sequence[str]) -> str:
    """The one line that repeats a trial and scores it on the test parts."""
    return shlex.join(["dsfedmed", "run", *overrides])


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(_written(item) for item in value) + "]"
    text = str(value)
    if text and all(letter.isalnum() or letter in "_-./" for letter in text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def read_overrides(path: Path) -> list[str]:
    """Reads the overrides of a YAML file such as a study's ``best.yaml``.

    Raises:
        ConfigurationError: it cannot be read or holds no list ``overrides`` of texts.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    overrides = content.get("overrides") if isinstance(content, dict) else None
    if not isinstance(overrides, list) or not all(isinstance(item, str) for item in overrides):
        raise ConfigurationError(
            f"{path} has no list of overrides; expected 'overrides: [KEY=VALUE, ...]', as in a "
            "study's best.yaml"
        )
    return overrides
