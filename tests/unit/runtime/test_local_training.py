"""What a round asks of a client: the learning rate falls from round to round."""

from pathlib import Path

import pytest
import torch

from dsfedmed_ray.data.brain_sites import BrainSitesConfig
from dsfedmed_ray.data.splits import LeaveOneSiteOut
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.runtime.client import HospitalBuilder
from dsfedmed_ray.runtime.client_program import FitOrder
from dsfedmed_ray.runtime.local_training import LocalTraining

TRAINING = SegmentationTraining(learning_rate=0.008, batch_size=2, steps=1)


def test_rate_by_hand() -> None:
    """Halved each round: 0.008, 0.004, 0.002."""
    local = LocalTraining(training=TRAINING, rate_decay=0.5)
    assert [local.in_round(r).learning_rate for r in range(3)] == [0.008, 0.004, 0.002]


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_impossible_decay(value: float) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"rate_decay is {value}; allowed: above 0 up to 1"
    ):
        LocalTraining(training=TRAINING, rate_decay=value)


def test_a_kept_optimiser_goes_on_at_the_new_rate(tmp_path: Path) -> None:
    """Its saved state holds the rate of the round before, which must not come back."""
    federation = BrainSitesConfig(image_size=32, pairs_per_site=8).build()
    builder = HospitalBuilder(
        split=LeaveOneSiteOut(unseen_site="t2_a").apply(federation),
        model=UNetConfig(channels=(4, 8), num_res_units=0),
        local=LocalTraining(training=TRAINING, optimizer_state="keep", rate_decay=0.5),
        seed=0,
        state_folder=tmp_path,
    )
    hospital = builder()
    start = hospital._resident.shared.read()
    for round_index in range(2):
        hospital.fit(0, start, FitOrder(round_index=round_index, scale_bits=20))
    saved = torch.load(
        tmp_path / "train_federated" / "0000000" / "optimizer-000001.pt", weights_only=True
    )
    assert saved["param_groups"][0]["lr"] == 0.004
    assert saved["state"][0]["step"].item() == 2
