"""What one trial reserves."""

from typing import Any

import pytest

from dsfedmed_ray.errors import ConfigurationError, ResourceError
from dsfedmed_ray.runtime.demand import Demand
from dsfedmed_ray.runtime.engine import Resources, RuntimeConfig
from dsfedmed_ray.runtime.room import ClusterRoom
from dsfedmed_ray.tuning.space import TrialPlacement
from dsfedmed_ray.tuning.trial_resources import trial_bundles

SERIAL = RuntimeConfig(clients="serial")


def test_a_serial_trial_is_one_cpu_so_that_two_fit_on_two() -> None:
    assert trial_bundles(TrialPlacement(), SERIAL, 4, ClusterRoom(nodes=[{"CPU": 2.0}])) == [
        {"CPU": 1.0}
    ]


@pytest.mark.parametrize(("asked", "given"), [("auto", 1.0), (0.5, 0.5)])
def test_a_serial_trial_takes_a_gpu_where_there_is_one(asked: float, given: float) -> None:
    placement = TrialPlacement(num_gpus=asked)
    found = trial_bundles(placement, SERIAL, 4, ClusterRoom(nodes=[{"CPU": 2.0, "GPU": 2.0}]))
    assert found == [{"CPU": 1.0, "GPU": given}]


def test_all_actors_are_in_one_group() -> None:
    """Process, foundation on half a GPU, two clients on a quarter, Ray Data.

    Beside the clients half a GPU is free, so that one generator can have the foundation model's
    half: its 0.5 CPU is in that bundle. Two halves and two quarters would be more than the GPU.
    """
    runtime = RuntimeConfig(clients="actors")
    found = trial_bundles(
        TrialPlacement(), runtime, 2, ClusterRoom(nodes=[{"CPU": 4.0, "GPU": 1.0}])
    )
    assert found == [
        {"CPU": 1.0},
        {"GPU": 0.5, "CPU": 0.5},
        {"GPU": 0.25},
        {"GPU": 0.25},
        {"CPU": 1.0},
    ]


def test_generators_on_cpus_have_bundles_of_their_own() -> None:
    found = trial_bundles(
        TrialPlacement(), RuntimeConfig(clients="actors"), 2, ClusterRoom(nodes=[{"CPU": 4.0}])
    )
    assert found == [{"CPU": 1.0}, {"CPU": 0.5}, {"CPU": 0.5}, {"CPU": 1.0}]


@pytest.mark.parametrize(
    ("foundation", "generator", "server"),
    [
        # Two quarters are the foundation model's half: both are in its bundle, with both CPUs.
        ({"num_gpus": 0.5}, {"num_gpus": 0.25}, [{"GPU": 0.5, "CPU": 1.0}]),
        # Its bundle has no scanner, so each generator has one of its own that holds everything.
        (
            {"num_gpus": 0.5},
            {"num_gpus": 0.25, "resources": {"scanner": 1}},
            [{"GPU": 0.5}, *[{"CPU": 0.5, "GPU": 0.25, "scanner": 1}] * 2],
        ),
        # One scanner for two: the second generator has a bundle of its own.
        (
            {"num_gpus": 0, "resources": {"scanner": 1}},
            {"num_gpus": 0, "resources": {"scanner": 1}},
            [{"scanner": 1, "CPU": 0.5}, {"CPU": 0.5, "scanner": 1}],
        ),
    ],
)
def test_one_bundle_holds_all_that_a_generator_asks_for(
    foundation: dict[str, Any], generator: dict[str, Any], server: list[dict[str, float]]
) -> None:
    resources = Resources(
        client=Demand(num_gpus=0),
        foundation=Demand(**foundation),
        generator=Demand(num_cpus=0.5, **generator),
    )
    runtime = RuntimeConfig(clients="actors", resources=resources)
    room = ClusterRoom(nodes=[{"CPU": 4.0, "GPU": 2.0, "scanner": 2.0}])
    found = trial_bundles(TrialPlacement(), runtime, 2, room)
    assert found == [{"CPU": 1.0}, *server, {"CPU": 1.0}]


def test_a_pool_has_its_workers() -> None:
    client = Demand(num_cpus=1.0, num_gpus=0)
    runtime = RuntimeConfig(clients="pool", num_workers=3, resources=Resources(client=client))
    found = trial_bundles(TrialPlacement(), runtime, 1000, ClusterRoom(nodes=[{"CPU": 8.0}]))
    assert found.count({"CPU": 1.0}) == 1 + 3 + 1


def test_what_can_never_be_placed_is_refused() -> None:
    with pytest.raises(
        ResourceError, match=r"a trial's actors ask for 3 CPU in all .*, the cluster has 2"
    ):
        trial_bundles(TrialPlacement(num_cpus=3), SERIAL, 4, ClusterRoom(nodes=[{"CPU": 2.0}]))
    with pytest.raises(
        ResourceError, match=r"a trial's actors ask for 2 GPU in all .*, the cluster has 0"
    ):
        trial_bundles(TrialPlacement(num_gpus=2), SERIAL, 4, ClusterRoom(nodes=[{"CPU": 2.0}]))


def test_a_trial_has_one_process_of_the_foundation_model() -> None:
    runtime = RuntimeConfig(clients="pool", foundation_workers=2)
    with pytest.raises(ConfigurationError, match=r"num_workers is 2, .*num_workers=1 in a study"):
        trial_bundles(TrialPlacement(), runtime, 4, ClusterRoom(nodes=[{"CPU": 8.0}]))


def test_what_is_left_open_cannot_be_reserved() -> None:
    with pytest.raises(ConfigurationError, match=r"'auto', which a trial cannot reserve; allowed"):
        trial_bundles(TrialPlacement(), RuntimeConfig(), 4, ClusterRoom(nodes=[{"CPU": 2.0}]))
