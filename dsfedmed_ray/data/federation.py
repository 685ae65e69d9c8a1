"""What every data set offers: sites, and pairs of image and mask in each.

An implementation is small, picklable and lazy: it crosses to every worker, and a population of
10^6 sites costs what one site costs.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from dsfedmed_ray.errors import DataError
from dsfedmed_ray.records import Sample

Part = Literal["train", "validation", "test"]
FixedPart = Literal["train", "held_out"]

_NAMES_SHOWN = 20


class Federation(Protocol):
    """Sites by name, each with numbered pairs of image and mask."""

    @property
    def name(self) -> str:
        """The data set's name, for messages and reports."""
        ...

    @property
    def structures(self) -> tuple[str, ...]:
        """One name for each mask channel."""
        ...

    @property
    def image_size(self) -> int:
        """Side of the square images and masks, pixels."""
        ...

    @property
    def sites(self) -> Sequence[str]:
        """The sites' names; lazy for populations."""
        ...

    def num_pairs(self, site: str) -> int:
        """How many pairs a site has.

        Raises:
            DataError: ``site`` is not a site of this federation.
        """
        ...

    def group(self, site: str, index: int) -> str:
        """What a pair was cut from (a subject, a parent image); a group is never divided."""
        ...

    def fixed_part(self, site: str, index: int) -> FixedPart | None:
        """The part that the data set's own layout gives a pair; None where the split chooses.

        A site answers None for all its pairs or for none.
        """
        ...

    def load(self, site: str, index: int) -> Sample:
        """Makes or reads one pair.

        Raises:
            DataError: the site is unknown, or a file cannot be used.
        """
        ...

    def fingerprint(self) -> str:
        """Identifies the content; the part of a stage's key that stands for the data."""
        ...


def unknown_site(site: str, *, name: str, sites: Sequence[str], what: str = "site") -> str:
    """The message for a site that a federation does not have.

    Args:
        site: what was asked for.
        name: the federation's name.
        sites: the federation's sites.
        what: the word before the site, such as the name of a configuration key.
    """
    return f"{what} {site!r} is not a site of {name}; sites: {list_names(sites)}"


def list_names(names: Sequence[str]) -> str:
    """The first names of a sequence, and how many there are if not all are shown."""
    shown = ", ".join(names[position] for position in range(min(len(names), _NAMES_SHOWN)))
    return shown if len(names) <= _NAMES_SHOWN else f"{shown}, ... ({len(names)} in all)"


def require_two_sites(name: str, sites: Sequence[str]) -> None:
    """Checks that there is something to federate.

    Raises:
        DataError: fewer than two sites.
    """
    if len(sites) < 2:
        raise DataError(
            f"{name} has {len(sites)} site{'' if len(sites) == 1 else 's'} "
            f"({list_names(sites) or 'none'}), a federation needs at least two; add a site"
        )
