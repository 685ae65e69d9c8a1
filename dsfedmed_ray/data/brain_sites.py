"""BrainSites: simulated scanners over a population-average brain, made on demand.

A site is a scanner, a subject a smooth random deformation of the template, a sample an axial slice
with a mask channel for each structure. Each is a pure function of its name, so nothing is stored
and any number of sites costs the same; docs/brain_sites.md says what this is and what it is not.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dsfedmed_ray.data.brain_template import (
    FIELD_OF_VIEW_MM,
    SLICE_RANGE_MM,
    STRUCTURES,
    Structure,
    brain_template,
    check_template,
)
from dsfedmed_ray.data.deformation import Deformation, draw_deformation
from dsfedmed_ray.data.federation import unknown_site
from dsfedmed_ray.data.intensity import stretch
from dsfedmed_ray.data.scanners import SEQUENCES, PulseSequence, Scanner, acquire, draw_scanner
from dsfedmed_ray.data.site_names import NumberedNames
from dsfedmed_ray.errors import ConfigurationError, DataError
from dsfedmed_ray.records import Sample
from dsfedmed_ray.seeding import derive_seed, numpy_generator

_VERSION = 1
"""Raised whenever the same configuration would give other pixels; part of every fingerprint."""


@dataclass(frozen=True, kw_only=True)
class BrainSitesConfig:
    """Settings of the embedded federation.

    Attributes:
        image_size: side of images and masks, pixels; the field of view is always 208 mm.
        structures: what the masks show, one channel each.
        sequences: the pulse sequence of each site's scanner, ``t1``, ``t2``, ``pd`` or ``flair``;
            the sites are named ``t1_a``, ``t1_b``, ``t2_a`` and so on.
        num_sites: a population of this many sites instead, each with a scanner of a random
            sequence, named ``site_000000`` and so on; null for the sites of ``sequences``.
        pairs_per_site: pairs of every site, or several numbers that repeat over the sites.
        slices_per_subject: pairs cut from one subject; a subject is never divided by a split.
        max_train_pairs: the most training pairs of a seen site, which the split keeps to
            (conf/split reads it from here); null for all.
        seed: draws scanners, subjects and noise.
    """

    image_size: int = 128
    structures: Sequence[Structure] = ("white_matter", "grey_matter", "ventricles")
    sequences: Sequence[PulseSequence] = ("t1", "pd", "t1", "t2")
    num_sites: int | None = None
    pairs_per_site: int | Sequence[int] = (40, 56, 12, 48)
    slices_per_subject: int = 2
    max_train_pairs: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("structures", "sequences"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.pairs_per_site, int):
            object.__setattr__(self, "pairs_per_site", tuple(self.pairs_per_site))
        if not self.structures or not set(self.structures) <= set(STRUCTURES):
            raise ConfigurationError(
                f"data.structures is {list(self.structures)}; give at least one of "
                f"{', '.join(STRUCTURES)}"
            )
        for sequence in self.sequences:
            if sequence not in SEQUENCES:
                raise ConfigurationError(
                    f"data.sequences holds {sequence!r}; use only {', '.join(SEQUENCES)}"
                )
        self._check_counts()

    def _check_counts(self) -> None:
        for name, least in (("image_size", 32), ("slices_per_subject", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(
                    f"data.{name} {getattr(self, name)} is below {least}; use at least {least}"
                )
        num_sites = len(self.sequences) if self.num_sites is None else self.num_sites
        if num_sites < 2:
            raise ConfigurationError(
                f"brain_sites of {num_sites} site is too small, a federation needs at least two; "
                "raise data.num_sites or lengthen data.sequences"
            )
        pairs = self.pairs_per_site
        smallest = pairs if isinstance(pairs, int) else min(pairs, default=0)
        if smallest < 1:
            raise ConfigurationError(
                f"data.pairs_per_site {pairs} leaves a site without pairs; use at least 1 for each"
            )

    def build(self) -> "BrainSites":
        """Opens the federation; the template is read when the first pair is made.

        Raises:
            DataError: the template is not installed.
        """
        check_template()
        return BrainSites(self)


class BrainSites:
    """The embedded federation."""

    name = "brain_sites"

    def __init__(self, config: BrainSitesConfig) -> None:
        self.config = config
        self.structures: tuple[str, ...] = tuple(config.structures)
        self.image_size = config.image_size
        self.sites: Sequence[str] = (
            _lettered(config.sequences)
            if config.num_sites is None
            else NumberedNames("site_", config.num_sites)
        )

    def num_pairs(self, site: str) -> int:
        """How many pairs a site has.

        Raises:
            DataError: the site is unknown.
        """
        position = self._position(site)
        pairs = self.config.pairs_per_site
        return pairs if isinstance(pairs, int) else pairs[position % len(pairs)]

    def group(self, site: str, index: int) -> str:
        """The subject that a pair was cut from."""
        return f"subject_{index // self.config.slices_per_subject:04d}"

    def fixed_part(self, site: str, index: int) -> None:
        """None: the split chooses."""

    def scanner(self, site: str) -> Scanner:
        """The scanner of a site.

        Raises:
            DataError: the site is unknown.
        """
        position = self._position(site)
        sequence = None if self.config.num_sites is not None else self.config.sequences[position]
        return draw_scanner(numpy_generator(self.config.seed, "scanner", site), sequence)

    def load(self, site: str, index: int) -> Sample:
        """Makes one pair.

        Raises:
            DataError: the site is unknown or has no such pair.
        """
        num_pairs = self.num_pairs(site)
        if not 0 <= index < num_pairs:
            raise DataError(f"site {site!r} has no pair {index}; it has 0 to {num_pairs - 1}")
        scanner = self.scanner(site)
        subject, slice_number = divmod(index, self.config.slices_per_subject)
        generator = numpy_generator(self.config.seed, "slice", site, index)
        lows, highs = zip(*(SLICE_RANGE_MM[name] for name in self.config.structures), strict=True)
        low, high = max(lows), min(highs)
        place = (slice_number + generator.uniform()) / self.config.slices_per_subject
        slab = brain_template().slab(
            self.config.structures, low + place * (high - low), scanner.thickness_mm
        )
        deformation = _subject(self.config.seed, site, subject, self.config.image_size)
        t1, grey, white, fluid, *structures = deformation.warp(slab)
        image = acquire(
            scanner,
            t1,
            np.stack([grey, white, fluid]),
            pixel_mm=FIELD_OF_VIEW_MM / self.config.image_size,
            generator=generator,
        )
        return Sample(
            sample_id=f"{self.group(site, index)}_slice_{slice_number}",
            image=stretch(image),
            mask=(np.stack(structures, axis=-1) >= 0.5).astype(np.uint8),
        )

    def fingerprint(self) -> str:
        """Identifies configuration and version of the simulation."""
        return f"{derive_seed(self.name, _VERSION, repr(asdict(self.config))):016x}"

    def _position(self, site: str) -> int:
        if site not in self.sites:
            raise DataError(unknown_site(site, name=self.name, sites=self.sites))
        return self.sites.index(site)


def _subject(seed: int, site: str, subject: int, size: int) -> Deformation:
    return draw_deformation(
        numpy_generator(seed, "subject", site, subject),
        size=size,
        field_of_view_mm=FIELD_OF_VIEW_MM,
    )


def _lettered(sequences: Sequence[PulseSequence]) -> tuple[str, ...]:
    seen: Counter[str] = Counter()
    names = []
    for sequence in sequences:
        names.append(f"{sequence}_{chr(ord('a') + seen[sequence])}")
        seen[sequence] += 1
    return tuple(names)
