"""A trial's actors and data tasks live in the trial's own placement group.

Every CPU of the machine is held by trials here: what looks for one outside waits for ever.
"""

import logging
import time
from collections.abc import Iterator

import pytest

from dsfedmed_ray.runtime.demand import Demand

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(180)]

BUNDLES = [{"CPU": 1.0}, {"CPU": 0.5}, {"CPU": 0.5}, {"CPU": 1.0}]


@pytest.fixture(autouse=True)
def _six_cpus() -> Iterator[None]:
    import ray

    ray.init(
        address="local",
        num_cpus=6,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


def test_two_trials_that_hold_all_cpus_do_not_wait_for_each_other() -> None:
    """Each of two trials holds 3 of 6 CPUs: its process, two actors of 0.5, one for data."""
    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    class Trial:
        def run(self) -> tuple[int, bool]:
            import ray.data
            from ray.data import DataContext

            from dsfedmed_ray.runtime.placement import Placement, keep_data_inside

            placement = Placement("clients", [Demand(num_cpus=0.5, num_gpus=0)] * 2)

            class Client:
                def group(self) -> str:
                    return ray.util.get_current_placement_group().id.hex()

            actors = [
                ray.remote(Client).options(**placement.options(index)).remote()
                for index in range(2)
            ]
            groups = ray.get([actor.group.remote() for actor in actors], timeout=90)
            inside = set(groups) == {ray.util.get_current_placement_group().id.hex()}
            for actor in actors:
                ray.kill(actor)
            context = DataContext.get_current()
            context.enable_progress_bars = False
            keep_data_inside(context)
            rows = ray.data.range(6).map_batches(lambda batch: batch).take_all()
            placement.release()
            return len(rows), inside

    groups = [placement_group(BUNDLES) for _ in range(2)]
    ray.get([group.ready() for group in groups], timeout=60)
    _wait_until_no_cpu_is_free()
    trials = [
        ray.remote(Trial)
        .options(
            num_cpus=1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
            ),
        )
        .remote()
        for group in groups
    ]
    found = ray.get([trial.run.remote() for trial in trials], timeout=150)
    assert found == [(6, True), (6, True)]


def _wait_until_no_cpu_is_free(seconds: float = 30.0) -> None:
    """Ray's view of the cluster follows its nodes a moment later than a group is ready."""
    import ray

    deadline = time.monotonic() + seconds
    while (free := ray.available_resources().get("CPU", 0.0)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert free == 0.0
