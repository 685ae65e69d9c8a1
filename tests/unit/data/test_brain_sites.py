"""BrainSites: every pair a pure function of its name, any number of sites."""

import hashlib
import pickle
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from dsfedmed_ray.data.brain_sites import BrainSitesConfig
from dsfedmed_ray.data.brain_template import STRUCTURES, Structure
from dsfedmed_ray.errors import ConfigurationError, DataError


def test_the_default_is_three_hospitals_and_one_of_another_kind() -> None:
    federation = BrainSitesConfig().build()

    assert federation.sites == ("t1_a", "pd_a", "t1_b", "t2_a")
    assert [federation.num_pairs(site) for site in federation.sites] == [40, 56, 12, 48]
    assert federation.scanner("t2_a").sequence == "t2"
    assert federation.structures == ("white_matter", "grey_matter", "ventricles")


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("image_size", [64, 128])
def test_samples_are_images_with_masks(structure: Structure, image_size: int) -> None:
    federation = BrainSitesConfig(structures=[structure], image_size=image_size).build()
    for site in federation.sites:
        sample = federation.load(site, 3)
        assert sample.image.shape == (image_size, image_size, 3)
        assert sample.image.dtype == sample.mask.dtype == np.uint8
        assert (sample.image.min(), sample.image.max()) == (0, 255)
        assert sample.mask.shape == (image_size, image_size, 1)
        assert 0.003 < sample.mask.mean() < 0.3


def test_several_structures_are_channels_of_one_mask() -> None:
    """On the slices where all are visible; white matter holds no ventricle."""
    several = BrainSitesConfig(structures=["white_matter", "ventricles"]).build()
    alone = BrainSitesConfig(structures=["ventricles"]).build()
    for index in range(4):
        mask = several.load("t1_a", index).mask
        assert mask.shape == (128, 128, 2)
        np.testing.assert_array_equal(mask[..., 1:], alone.load("t1_a", index).mask)
        assert mask[..., 0].sum() > 5 * mask[..., 1].sum() > 0
        assert not (mask[..., 0] & mask[..., 1]).any()


def test_no_mask_is_empty() -> None:
    federation = BrainSitesConfig(num_sites=60, pairs_per_site=4, image_size=64).build()

    areas = [
        federation.load(site, index).mask.sum() for site in federation.sites for index in (0, 3)
    ]

    assert min(areas) >= 10


def test_every_pair_differs_from_every_other() -> None:
    federation = BrainSitesConfig(num_sites=3, pairs_per_site=4, image_size=32).build()

    samples = [federation.load(site, index) for site in federation.sites for index in range(4)]

    assert len({sample.image.tobytes() for sample in samples}) == 12
    assert len({sample.mask.tobytes() for sample in samples}) == 12
    assert len({sample.sample_id for sample in samples}) == 4


def test_slices_of_a_subject_share_its_group() -> None:
    federation = BrainSitesConfig(slices_per_subject=2).build()

    assert [federation.group("t1_a", index) for index in range(4)] == [
        "subject_0000",
        "subject_0000",
        "subject_0001",
        "subject_0001",
    ]
    assert federation.load("t1_a", 3).sample_id == "subject_0001_slice_1"


def test_another_process_makes_the_same_bytes() -> None:
    program = (
        "from dsfedmed_ray.data.brain_sites import BrainSitesConfig as C; import hashlib;"
        "s = C(image_size=64).build().load('pd_a', 7);"
        "print(hashlib.sha256(s.image.tobytes() + s.mask.tobytes()).hexdigest())"
    )
    federation = BrainSitesConfig(image_size=64).build()
    federation.load("t1_a", 0)  # what was made before does not matter

    sample = federation.load("pd_a", 7)
    own = hashlib.sha256(sample.image.tobytes() + sample.mask.tobytes()).hexdigest()
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert other.stdout.strip() == own, other.stderr


def test_the_seed_and_the_site_decide() -> None:
    first = BrainSitesConfig(image_size=32).build()
    other = BrainSitesConfig(image_size=32, seed=1).build()

    assert (first.load("t1_a", 0).mask != other.load("t1_a", 0).mask).any()
    assert (first.load("t1_a", 0).mask != first.load("t1_b", 0).mask).any()


def test_a_site_does_not_depend_on_how_many_there_are() -> None:
    few, many = (
        BrainSitesConfig(num_sites=number, pairs_per_site=4, image_size=32).build()
        for number in (5, 10**6)
    )

    np.testing.assert_array_equal(
        few.load("site_000003", 1).image, many.load("site_000003", 1).image
    )


def test_a_million_sites_cost_nothing_until_used() -> None:
    tracemalloc.start()
    federation = BrainSitesConfig(num_sites=10**6, pairs_per_site=8).build()
    num_pairs = federation.num_pairs("site_999999")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 100_000
    assert num_pairs == 8
    assert len(pickle.dumps(federation)) < 1000
    assert federation.load("site_999999", 7).mask.any()


def test_a_sample_takes_ten_milliseconds_at_most() -> None:
    """Processor time, the best of many: a busy machine only adds."""
    federation = BrainSitesConfig(image_size=128).build()
    federation.load("t1_a", 0)

    seconds = []
    for index in range(20):
        start = time.process_time()
        federation.load("t1_a", index)
        seconds.append(time.process_time() - start)

    assert min(seconds) < 0.010


def test_several_numbers_of_pairs_repeat_over_the_sites() -> None:
    federation = BrainSitesConfig(num_sites=5, pairs_per_site=[8, 4]).build()

    assert [federation.num_pairs(site) for site in federation.sites] == [8, 4, 8, 4, 8]


def test_fingerprints_follow_the_configuration() -> None:
    assert BrainSitesConfig().build().fingerprint() == BrainSitesConfig().build().fingerprint()
    prints = {
        BrainSitesConfig(**settings).build().fingerprint()  # type: ignore[arg-type]
        for settings in ({}, {"seed": 1}, {"image_size": 64}, {"structures": ["white_matter"]})
    }
    assert len(prints) == 4


def test_lists_from_configuration_files_are_taken() -> None:
    config = BrainSitesConfig(sequences=["t1", "t2"], pairs_per_site=[4, 6])

    assert config == BrainSitesConfig(sequences=("t1", "t2"), pairs_per_site=(4, 6))
    assert hash(config) == hash(BrainSitesConfig(sequences=("t1", "t2"), pairs_per_site=(4, 6)))


def test_unknown_sites_and_pairs_are_refused() -> None:
    federation = BrainSitesConfig().build()

    with pytest.raises(
        DataError, match="site 'UCLH' is not a site of brain_sites; sites: t1_a, pd_a, t1_b, t2_a"
    ):
        federation.load("UCLH", 0)
    with pytest.raises(DataError, match="site 't1_b' has no pair 12; it has 0 to 11"):
        federation.load("t1_b", 12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"structures": ["liver"]},
            r"data.structures is \['liver'\]; give at least one of white_matter",
        ),
        ({"structures": []}, r"data.structures is \[\]; give at least one of white_matter"),
        ({"sequences": ["t1", "ct"]}, "data.sequences holds 'ct'; use only t1, t2, pd, flair"),
        (
            {"sequences": ["t1"]},
            "brain_sites of 1 site is too small, a federation needs at least two",
        ),
        ({"num_sites": 1}, "brain_sites of 1 site is too small, a federation needs at least two"),
        ({"image_size": 16}, "data.image_size 16 is below 32"),
        ({"slices_per_subject": 0}, "data.slices_per_subject 0 is below 1"),
        ({"pairs_per_site": [4, 0]}, r"data.pairs_per_site \(4, 0\) leaves a site without pairs"),
        ({"pairs_per_site": []}, r"data.pairs_per_site \(\) leaves a site without pairs"),
        ({"pairs_per_site": 0}, "data.pairs_per_site 0 leaves a site without pairs; use at"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        BrainSitesConfig(**settings)  # type: ignore[arg-type]
