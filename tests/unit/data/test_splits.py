"""Leave-one-site-out: whole groups, stable parts, populations at no cost."""

import pickle
import time
from collections.abc import Sequence

import numpy as np
import pytest

from dsfedmed_ray.data.brain_sites import BrainSitesConfig
from dsfedmed_ray.data.federation import FixedPart, Part
from dsfedmed_ray.data.site_names import NumberedNames
from dsfedmed_ray.data.splits import LeaveOneSiteOut, deal_groups
from dsfedmed_ray.errors import ConfigurationError, DataError
from dsfedmed_ray.records import Sample

PARTS: tuple[Part, ...] = ("train", "validation", "test")


class CountedPairs:
    """A federation whose pairs are blank; counts how often each is loaded."""

    name = "counted"
    structures = ("foreground",)
    image_size = 32

    def __init__(
        self,
        sites: Sequence[str] = ("a", "b", "c"),
        num_pairs: int = 20,
        pairs_per_group: int = 1,
        fixed_train: int | None = None,
    ) -> None:
        self.sites = sites
        self.loads: list[tuple[str, int]] = []
        self._num_pairs = num_pairs
        self._pairs_per_group = pairs_per_group
        self._fixed_train = fixed_train

    def num_pairs(self, site: str) -> int:
        return self._num_pairs

    def group(self, site: str, index: int) -> str:
        return str(index // self._pairs_per_group)

    def fixed_part(self, site: str, index: int) -> FixedPart | None:
        if self._fixed_train is None:
            return None
        return "train" if index < self._fixed_train else "held_out"

    def load(self, site: str, index: int) -> Sample:
        self.loads.append((site, index))
        blank = np.zeros((32, 32, 3), np.uint8)
        return Sample(sample_id=str(index), image=blank, mask=blank[..., :1])

    def fingerprint(self) -> str:
        return "counted"


def test_the_unseen_site_is_test_only_and_no_client() -> None:
    split = LeaveOneSiteOut(unseen_site="b").apply(CountedPairs())

    assert list(split.seen_sites) == ["a", "c"]
    assert split.num_clients == 2
    assert split.client_name(1) == "c"
    assert split.indices("b", "test") == tuple(range(20))
    assert split.indices("b", "train") == split.indices("b", "validation") == ()


def test_without_an_unseen_site_all_are_clients() -> None:
    split = LeaveOneSiteOut().apply(CountedPairs())

    assert list(split.seen_sites) == ["a", "b", "c"]
    assert split.unseen_site is None


def test_parts_are_disjoint_complete_and_of_their_size() -> None:
    """20 pairs, a fifth each for validation and test: 12, 4, 4."""
    split = LeaveOneSiteOut().apply(CountedPairs())

    parts = [split.indices("a", part) for part in PARTS]

    assert [len(part) for part in parts] == [12, 4, 4]
    assert sorted(sum(parts, ())) == list(range(20))
    assert split.num_train(0) == 12


def test_a_group_is_on_one_side_only() -> None:
    federation = CountedPairs(num_pairs=20, pairs_per_group=4)
    split = LeaveOneSiteOut().apply(federation)

    groups = [{federation.group("a", i) for i in split.indices("a", part)} for part in PARTS]

    assert [len(group) for group in groups] == [3, 1, 1]
    assert len(set.union(*groups)) == 5


def test_the_seed_and_the_site_decide_and_nothing_else() -> None:
    first = LeaveOneSiteOut(seed=1).apply(CountedPairs())
    again = LeaveOneSiteOut(seed=1, unseen_site="c").apply(CountedPairs())
    other = LeaveOneSiteOut(seed=2).apply(CountedPairs())

    assert first.indices("a", "test") == again.indices("a", "test")
    assert first.indices("a", "test") != other.indices("a", "test")
    assert first.indices("a", "test") != first.indices("b", "test")


def test_the_cap_keeps_to_the_train_part_and_nests() -> None:
    parts = {
        most: LeaveOneSiteOut(max_train_pairs=most).apply(CountedPairs())
        for most in (3, 5, 100, None)
    }

    trains = {most: set(split.indices("a", "train")) for most, split in parts.items()}
    assert [len(trains[most]) for most in (3, 5, 100)] == [3, 5, 12]
    assert trains[3] < trains[5] < trains[100] == trains[None]
    assert len({split.indices("a", "test") for split in parts.values()}) == 1


def test_a_small_site_keeps_a_group_for_each_part() -> None:
    """Three groups, however small the fractions."""
    split = LeaveOneSiteOut(validation_fraction=0.01, test_fraction=0.9).apply(
        CountedPairs(num_pairs=3)
    )

    assert [len(split.indices("a", part)) for part in PARTS] == [1, 1, 1]


def test_a_fraction_of_zero_gives_no_part() -> None:
    split = LeaveOneSiteOut(validation_fraction=0, test_fraction=0).apply(CountedPairs(num_pairs=1))

    assert [len(split.indices("a", part)) for part in PARTS] == [1, 0, 0]


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"site 'a' of counted has 2 groups .* need at least 3; add"
    ):
        LeaveOneSiteOut().apply(CountedPairs(num_pairs=8, pairs_per_group=4))


def test_what_the_layout_fixes_is_honoured() -> None:
    """12 pairs for training; the 8 held out are shared 1 : 3 between validation and test."""
    split = LeaveOneSiteOut(
        validation_fraction=0.1, test_fraction=0.3, unseen_site="c", max_train_pairs=10
    ).apply(CountedPairs(fixed_train=12))

    train, validation, test = (set(split.indices("a", part)) for part in PARTS)
    assert len(train) == 10
    assert train < set(range(12))
    assert (len(validation), len(test)) == (2, 6)
    assert validation | test == set(range(12, 20))
    assert split.indices("c", "test") == tuple(range(20))


def test_a_layout_without_held_out_pairs_is_refused() -> None:
    with pytest.raises(DataError, match=r"has 0 groups of images to divide, test \+ validation"):
        LeaveOneSiteOut().apply(CountedPairs(fixed_train=20))


def test_samples_are_loaded_on_access_and_once() -> None:
    federation = CountedPairs()
    samples = LeaveOneSiteOut().apply(federation).samples("a", "test")

    assert len(samples) == 4
    assert federation.loads == []
    assert [sample.sample_id for sample in samples] == [s.sample_id for s in samples[:]]
    assert len(federation.loads) == 4
    assert samples[-1].sample_id == samples[3].sample_id
    with pytest.raises(IndexError):
        samples[4]


def test_a_split_travels_small_and_gives_the_same() -> None:
    split = LeaveOneSiteOut(unseen_site="t2_a").apply(BrainSitesConfig(image_size=32).build())
    first = split.samples("t1_a", "test")[0]

    travelled = pickle.dumps(split)
    copy = pickle.loads(travelled)

    assert len(travelled) < 2000
    assert copy.fingerprint() == split.fingerprint()
    np.testing.assert_array_equal(copy.samples("t1_a", "test")[0].image, first.image)


def test_a_million_sites_cost_what_a_few_cost() -> None:
    config = BrainSitesConfig(num_sites=10**6, pairs_per_site=6)
    split = LeaveOneSiteOut(unseen_site="site_500000").apply(config.build())

    start = time.perf_counter()
    numbers = [split.num_train(client) for client in range(0, 10**6, 10_000)]

    assert time.perf_counter() - start < 1.0
    assert numbers == [2] * 100
    assert split.num_clients == 999_999
    assert split.client_name(500_000) == "site_500001"
    assert len(pickle.dumps(split)) < 2000


def test_fingerprints_differ_by_rule_and_by_data() -> None:
    federation = CountedPairs()
    prints = {
        LeaveOneSiteOut(seed=0).apply(federation).fingerprint(),
        LeaveOneSiteOut(seed=1).apply(federation).fingerprint(),
        LeaveOneSiteOut(seed=0).apply(BrainSitesConfig().build()).fingerprint(),
    }

    assert len(prints) == 3


def test_a_site_is_the_same_whichever_other_site_is_left_out() -> None:
    federation = CountedPairs()
    first, second = (LeaveOneSiteOut(unseen_site=site).apply(federation) for site in ("a", "b"))
    assert first.site_fingerprint("c") == second.site_fingerprint("c")
    others = {
        first.site_fingerprint("b"),
        LeaveOneSiteOut(seed=1).apply(federation).site_fingerprint("c"),
        LeaveOneSiteOut(max_train_pairs=3).apply(federation).site_fingerprint("c"),
        LeaveOneSiteOut().apply(BrainSitesConfig().build()).site_fingerprint("t1_a"),
    }
    assert len(others - {first.site_fingerprint("c")}) == 4


def test_an_unknown_unseen_site_is_refused_with_the_sites() -> None:
    with pytest.raises(
        ConfigurationError, match="unseen_site 'UCLH' is not a site of counted; sites: a, b, c"
    ):
        LeaveOneSiteOut(unseen_site="UCLH").apply(CountedPairs())


def test_a_long_list_of_sites_is_cut() -> None:
    sites = NumberedNames("site_", 10**6)

    with pytest.raises(ConfigurationError, match=r"site_000019, \.\.\. \(1000000 in all\)$"):
        LeaveOneSiteOut(unseen_site="x").apply(CountedPairs(sites=sites))


def test_one_site_is_no_federation() -> None:
    with pytest.raises(DataError, match=r"counted has 1 site \(a\), a federation needs at least"):
        LeaveOneSiteOut().apply(CountedPairs(sites=("a",)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_fraction": 1.0}, r"split.validation_fraction 1.0 is outside \[0, 1\)"),
        ({"test_fraction": -0.1}, r"split.test_fraction -0.1 is outside \[0, 1\)"),
        ({"test_fraction": 0.5, "validation_fraction": 0.5}, "leave nothing to train on"),
        ({"max_train_pairs": 0}, "max_train_pairs 0 is below 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        LeaveOneSiteOut(**settings)  # type: ignore[arg-type]


def test_groups_are_dealt_in_order_and_one_is_left_for_each_part() -> None:
    """Of 10 pairs test wants 5: the first group of 4 is too few, the second makes it 8."""
    groups = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]

    assert deal_groups(groups, {"test": 0.5, "train": 0.5}) == {
        "train": (8, 9),
        "validation": (),
        "test": tuple(range(8)),
    }
