"""What one trial reserves."""

import pytest

from dsfedmed_ray.errors import ConfigurationError, ResourceError
from dsfedmed_ray.runtime.demand import Demand
from dsfedmed_ray.runtime.engine import Resources, RuntimeConfig
from dsfedmed_ray.tuning.space import TrialPlacement
from dsfedmed_ray.tuning.trial_resources import trial_bundles

SERIAL = RuntimeConfig(clients="serial")


def test_a_serial_trial_is_one_cpu_so_that_two_fit_on_two() -> None:
    assert trial_bundles(TrialPlacement(), SERIAL, 4, {"CPU": 2.0}) == [{"CPU": 1.0}]


@pytest.mark.parametrize(("asked", "given"), [("auto", 1.0), (0.5, 0.5)])
def test_a_serial_trial_takes_a_gpu_where_there_is_one(asked: float, given: float) -> None:
    placement = TrialPlacement(num_gpus=asked)
    found = trial_bundles(placement, SERIAL, 4, {"CPU": 2.0, "GPU": 2.0})
    assert found == [{"CPU": 1.0, "GPU": given}]


def test_all_actors_are_in_one_group() -> None:
    """Process, foundation on half a GPU, two clients on a quarter, two generators, Ray Data."""
    runtime = RuntimeConfig(clients="actors")
    found = trial_bundles(TrialPlacement(), runtime, 2, {"CPU": 4.0, "GPU": 1.0})
    assert found == [
        {"CPU": 1.0},
        {"GPU": 0.5},
        {"GPU": 0.25},
        {"GPU": 0.25},
        {"CPU": 0.5},
        {"CPU": 0.5},
        {"CPU": 1.0},
    ]


def test_a_pool_has_its_workers() -> None:
    client = Demand(num_cpus=1.0, num_gpus=0)
    runtime = RuntimeConfig(clients="pool", num_workers=3, resources=Resources(client=client))
    found = trial_bundles(TrialPlacement(), runtime, 1000, {"CPU": 8.0})
    assert found.count({"CPU": 1.0}) == 1 + 3 + 1


def test_what_can_never_be_placed_is_refused() -> None:
    with pytest.raises(ResourceError, match="a trial asks for 3 CPU in all, the cluster has 2"):
        trial_bundles(TrialPlacement(num_cpus=3), SERIAL, 4, {"CPU": 2.0})
    with pytest.raises(ResourceError, match="a trial asks for 2 GPU in all, the cluster has 0"):
        trial_bundles(TrialPlacement(num_gpus=2), SERIAL, 4, {"CPU": 2.0})


def test_a_trial_has_one_process_of_the_foundation_model() -> None:
    runtime = RuntimeConfig(clients="pool", foundation_workers=2)
    with pytest.raises(ConfigurationError, match=r"num_workers is 2, .*num_workers=1 in a study"):
        trial_bundles(TrialPlacement(), runtime, 4, {"CPU": 8.0})


def test_what_is_left_open_cannot_be_reserved() -> None:
    with pytest.raises(ConfigurationError, match=r"'auto', which a trial cannot reserve; allowed"):
        trial_bundles(TrialPlacement(), RuntimeConfig(), 4, {"CPU": 2.0})
