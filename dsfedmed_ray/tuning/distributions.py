"""What a space file may say of one setting: ``{loguniform: [0.5, 4.0]}``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsfedmed_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from ray.tune.search.sample import Domain

RANGES = {
    "uniform": "[low, high]",
    "loguniform": "[low, high], low above 0",
    "quniform": "[low, high, step]",
    "randint": "[low, high] of whole numbers, both included",
}
LISTS = ("choice", "grid")


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Where the values of one setting come from.

    Attributes:
        kind: ``uniform``, ``loguniform``, ``quniform``, ``randint``, ``choice`` or ``grid``. A
            grid's values are all tried; the others are drawn.
        values: the bounds (and the step), or the values to choose from.
    """

    kind: str
    values: tuple[Any, ...]

    @property
    def is_range(self) -> bool:
        """Whether values lie between two bounds."""
        return self.kind in RANGES

    @property
    def is_logarithmic(self) -> bool:
        """Whether equal ratios are equally likely."""
        return self.kind == "loguniform"

    def examples(self) -> tuple[Any, ...]:
        """The values whose validity is the distribution's: both bounds, or every choice."""
        return self.values[:2] if self.is_range else self.values

    def domain(self) -> "Domain | dict[str, Any]":
        """The distribution in Ray Tune's form."""
        from ray import tune

        if self.kind == "choice":
            return tune.choice(list(self.values))
        if self.kind == "grid":
            return tune.grid_search(list(self.values))
        if self.kind == "randint":
            low, high = self.values
            return tune.randint(low, high + 1)  # Ray's upper bound is left out
        make = {
            "uniform": tune.uniform,
            "loguniform": tune.loguniform,
            "quniform": tune.quniform,
        }
        return make[self.kind](*self.values)


def read_distribution(content: Any, where: str) -> Distribution:
    """Reads ``{kind: values}``.

    Args:
        content: what the file holds.
        where: file and key, for messages.

    Raises:
        ConfigurationError: an unknown kind, values of another form, or an empty range.
    """
    if not isinstance(content, dict) or len(content) != 1:
        raise ConfigurationError(
            f"{where} is {content!r}; write one distribution with its values, such as "
            "{uniform: [0.2, 1.0]}"
        )
    kind, values = next(iter(content.items()))
    if kind not in RANGES and kind not in LISTS:
        raise ConfigurationError(
            f"{where} has the distribution {kind!r}; allowed: {', '.join((*RANGES, *LISTS))}"
        )
    if not isinstance(values, list):
        raise ConfigurationError(f"{where}.{kind} is {values!r}; a list is expected")
    found = Distribution(kind=kind, values=tuple(values))
    if found.is_range:
        _check_range(found, f"{where}.{kind}")
    elif not values:
        raise ConfigurationError(f"{where}.{kind} is empty; give at least one value")
    elif unplain := [value for value in values if not _is_plain(value)]:
        raise ConfigurationError(
            f"{where}.{kind} holds {unplain[0]!r}; allowed: null, true, false, numbers, texts and "
            "lists of them"
        )
    elif len(set(map(repr, values))) < len(values):
        raise ConfigurationError(f"{where}.{kind} names a value twice; give each once")
    return found


def _check_range(distribution: Distribution, where: str) -> None:
    kind, values = distribution.kind, distribution.values
    numbers = int if kind == "randint" else int | float
    num_values = 3 if kind == "quniform" else 2
    if len(values) != num_values or not all(_is_a(value, numbers) for value in values):
        raise ConfigurationError(f"{where} is {list(values)}; expected {RANGES[kind]}")
    low, high = values[:2]
    if not low < high:
        raise ConfigurationError(
            f"{where} is empty: {low} is not below {high}; give a lower bound and a higher one"
        )
    if kind == "loguniform" and low <= 0:
        raise ConfigurationError(f"{where} starts at {low}; a logarithm needs a bound above 0")
    if kind == "quniform" and not 0 < values[2] <= high - low:
        raise ConfigurationError(
            f"{where} has the step {values[2]}; allowed: above 0 up to {high - low:g}"
        )


def _is_a(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
