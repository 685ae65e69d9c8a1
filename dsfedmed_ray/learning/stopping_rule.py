"""Checks of the settings that say when training stops and which state is its result."""

from dsfedmed_ray.errors import ConfigurationError


def check_patience(key: str, patience: int | None) -> None:
    """Checks after how many units without a better score training stops.

    Raises:
        ConfigurationError: it would not do any.
    """
    if patience is not None and patience < 1:
        raise ConfigurationError(f"{key} is {patience}; at least 1, or null to do all")


def check_tolerance(key: str, tolerance: float) -> None:
    """Checks how far below the best score a later state may lie.

    Raises:
        ConfigurationError: it is outside [0, 1].
    """
    if not 0 <= tolerance <= 1:
        raise ConfigurationError(
            f"{key} is {tolerance}; allowed: 0 (the best state) to 1 (the last)"
        )
