"""Leave one site out, and divide each other site into train, validation and test.

All is lazy: a site is divided when it is asked for, so a population costs what its sampled sites
cost.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import overload

from dsfedmed_ray.data.cache import BoundedCache
from dsfedmed_ray.data.federation import Federation, Part, require_two_sites, unknown_site
from dsfedmed_ray.data.site_names import NamesWithout
from dsfedmed_ray.errors import ConfigurationError, DataError
from dsfedmed_ray.records import Sample
from dsfedmed_ray.seeding import derive_seed, numpy_generator

Parts = dict[Part, tuple[int, ...]]
Shares = dict[Part, float]

_CACHED_SAMPLE_BYTES = 64 * 2**20
_CACHED_SITES = 4096


@dataclass(frozen=True, kw_only=True)
class LeaveOneSiteOut:
    """The split of the paper's evaluation (section 4): the unseen site is test only.

    Attributes:
        unseen_site: the site left out; None leaves no site out, and every site is a client.
        validation_fraction: share of a seen site's pairs for model selection, in [0, 1).
        test_fraction: share of a seen site's pairs for its reported scores, in [0, 1).
        max_train_pairs: the most training pairs a seen site keeps; None keeps all.
        seed: draws which groups fall into which part.
    """

    unseen_site: str | None = None
    validation_fraction: float = 0.2
    test_fraction: float = 0.2
    max_train_pairs: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("validation_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigurationError(
                    f"split.{name} {getattr(self, name)} is outside [0, 1); use 0.2, for example"
                )
        if self.validation_fraction + self.test_fraction >= 1:
            raise ConfigurationError(
                f"split.validation_fraction {self.validation_fraction} and split.test_fraction "
                f"{self.test_fraction} leave nothing to train on; their sum must be below 1"
            )
        if self.max_train_pairs is not None and self.max_train_pairs < 1:
            raise ConfigurationError(
                f"max_train_pairs {self.max_train_pairs} is below 1; use null for no limit"
            )

    def apply(self, federation: Federation) -> "SplitFederation":
        """Splits a federation.

        Raises:
            DataError: the federation has fewer than two sites, or one of its sites has too few
                groups to divide (found here, before a run starts, unless it is a population).
            ConfigurationError: the unseen site is not one of its sites.
        """
        require_two_sites(federation.name, federation.sites)
        if self.unseen_site is not None and self.unseen_site not in federation.sites:
            raise ConfigurationError(
                unknown_site(
                    self.unseen_site,
                    name=federation.name,
                    sites=federation.sites,
                    what="unseen_site",
                )
            )
        split = SplitFederation(federation, self)
        if split.num_clients <= _CACHED_SITES:
            for site in split.seen_sites:
                split.indices(site, "train")
        return split


class SplitFederation:
    """A federation with roles: client ``k`` computes for ``seen_sites[k]``.

    Args:
        federation: the sites.
        split: the rule.
    """

    def __init__(self, federation: Federation, split: LeaveOneSiteOut) -> None:
        self.federation = federation
        self.split = split
        self.unseen_site = split.unseen_site
        self.seen_sites: Sequence[str] = (
            federation.sites
            if split.unseen_site is None
            else NamesWithout(federation.sites, split.unseen_site)
        )
        self._parts: BoundedCache[str, Parts] = BoundedCache(_CACHED_SITES, _cost_one)
        self._samples: BoundedCache[tuple[str, int], Sample] = BoundedCache(
            _CACHED_SAMPLE_BYTES, _sample_bytes
        )

    @property
    def num_clients(self) -> int:
        """Clients, one for each seen site."""
        return len(self.seen_sites)

    def client_name(self, client: int) -> str:
        """The site that a client computes for."""
        return self.seen_sites[client]

    def num_train(self, client: int) -> int:
        """A client's training pairs: its n_k in FedAvg's weights."""
        return len(self.indices(self.client_name(client), "train"))

    def indices(self, site: str, part: Part) -> tuple[int, ...]:
        """The pairs of one part of a site, ascending.

        Raises:
            DataError: the site is unknown, or has too few groups for the parts asked for.
        """
        return self._parts.get(site, lambda: self._divide(site))[part]

    def samples(self, site: str, part: Part) -> Sequence[Sample]:
        """The samples of one part of a site, made or read on access."""
        return _LazySamples(self, site, self.indices(site, part))

    def load(self, site: str, index: int) -> Sample:
        """One sample, from a bounded cache."""
        return self._samples.get((site, index), lambda: self.federation.load(site, index))

    def require_validation(self) -> None:
        """Checks that there are images to choose a model by.

        Raises:
            ConfigurationError: the validation parts are empty.
        """
        if self.split.validation_fraction == 0:
            raise ConfigurationError(
                "split.validation_fraction is 0, which leaves no image to choose the model by; "
                "0.2, for example"
            )

    def fingerprint(self) -> str:
        """Identifies content and division."""
        return f"{derive_seed(self.federation.fingerprint(), repr(asdict(self.split))):016x}"

    def site_fingerprint(self, site: str) -> str:
        """Identifies a seen site's content and division, whichever other site is left out."""
        division = asdict(replace(self.split, unseen_site=None))
        return f"{derive_seed(self.federation.fingerprint(), site, repr(division)):016x}"

    def _divide(self, site: str) -> Parts:
        pairs = range(self.federation.num_pairs(site))
        if site == self.unseen_site:
            return {"train": (), "validation": (), "test": tuple(pairs)}
        validation, test = self.split.validation_fraction, self.split.test_fraction
        fixed = {index: self.federation.fixed_part(site, index) for index in pairs}
        if fixed[0] is None:
            shares: Shares = {
                "test": test,
                "validation": validation,
                "train": 1 - test - validation,
            }
            parts = self._deal(site, pairs, shares)
        else:
            # Models are selected on validation and reported on test, so what the layout holds out
            # is shared between the two: one image cannot serve both.
            both = (test + validation) or 1.0
            held_out = [index for index in pairs if fixed[index] == "held_out"]
            parts = self._deal(
                site, held_out, {"test": test / both, "validation": validation / both}
            )
            parts["train"] = tuple(index for index in pairs if fixed[index] == "train")
        return {**parts, "train": self._cap(site, parts["train"])}

    def _deal(self, site: str, pairs: Iterable[int], shares: Shares) -> Parts:
        groups: dict[str, list[int]] = {}
        for index in pairs:
            groups.setdefault(self.federation.group(site, index), []).append(index)
        wanted = [part for part, share in shares.items() if share > 0]
        if len(groups) < len(wanted):
            raise DataError(
                f"site {site!r} of {self.federation.name} has {len(groups)} groups of images to "
                f"divide, {' + '.join(wanted)} need at least {len(wanted)}; add images, or leave "
                "the site out"
            )
        order = numpy_generator(self.split.seed, "split", site).permutation(len(groups))
        in_order = [list(groups.values())[position] for position in order]
        return deal_groups(in_order, shares)

    def _cap(self, site: str, train: tuple[int, ...]) -> tuple[int, ...]:
        most = self.split.max_train_pairs
        if most is None or len(train) <= most:
            return train
        order = numpy_generator(self.split.seed, "train_cap", site).permutation(len(train))
        return tuple(sorted(train[position] for position in order[:most]))


def deal_groups(groups: Sequence[Sequence[int]], shares: Shares) -> Parts:
    """Deals whole groups to parts, in order.

    Each part takes groups until it has its share of the pairs, but leaves a group for every part
    after it; the last part takes the rest.

    Args:
        groups: the pairs of each group; at least as many groups as parts with a share above 0.
        shares: by part, summing to 1; a part whose share is 0 gets nothing.

    Returns:
        The pairs of each part, ascending.
    """
    num_pairs = sum(len(group) for group in groups)
    wanted = [part for part, share in shares.items() if share > 0]
    parts: Parts = {"train": (), "validation": (), "test": ()}
    position = 0
    for number, part in enumerate(wanted, start=1):
        owed = len(wanted) - number
        taken: list[int] = []
        while position < len(groups) - owed and (
            owed == 0 or not taken or len(taken) < shares[part] * num_pairs
        ):
            taken.extend(groups[position])
            position += 1
        parts[part] = tuple(sorted(taken))
    return parts


class _LazySamples(Sequence[Sample]):
    def __init__(self, split: SplitFederation, site: str, indices: tuple[int, ...]) -> None:
        self._split = split
        self._site = site
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, position: int) -> Sample: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Sample]: ...
    def __getitem__(self, position: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(position, slice):
            return _LazySamples(self._split, self._site, self._indices[position])
        return self._split.load(self._site, self._indices[position])


def _cost_one(_: Parts) -> int:
    return 1


def _sample_bytes(sample: Sample) -> int:
    return sample.image.nbytes + sample.mask.nbytes
