"""What is checked of a foundation model before a run starts."""

import pytest

from dsfedmed_ray.data.brain_sites import BrainSitesConfig
from dsfedmed_ray.data.splits import LeaveOneSiteOut
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.tinysam import TinySamConfig
from dsfedmed_ray.runtime.foundation_build import check_foundation


def test_statistics_of_whole_batches_are_not_shared() -> None:
    """TinySAM's BatchNorms move where its encoder trains, unless they are told not to."""
    split = LeaveOneSiteOut().apply(BrainSitesConfig(image_size=64).build())
    moving = TinySamConfig(input_size=64, weights="random", trainable="all")
    fixed = TinySamConfig(input_size=64, weights="random", trainable="all", fixed_statistics=True)
    decoder = TinySamConfig(input_size=64, weights="random", trainable="decoder")
    check_foundation(moving, split, 0)
    for model in (fixed, decoder):
        check_foundation(model, split, 0, num_workers=2)
    with pytest.raises(ConfigurationError, match=r"statistics of whole batches, .*_statistics=tru"):
        check_foundation(moving, split, 0, num_workers=2)
