"""Fractions of one logical GPU: who fits, and what is said of who does not. No CUDA is touched."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsfedmed_ray.cli import main
from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.runtime.demand import Demand, resolve_generators, resolve_gpu_fractions
from dsfedmed_ray.runtime.engine import Resources, RuntimeConfig, open_engine
from dsfedmed_ray.runtime.room import Autoscaling, NodeType

pytestmark = pytest.mark.ray

TINY = [
    "experiment=smoke",
    "size=toy",
    "foundation.weights=random",
    "foundation.input_size=64",
    "lightweight.channels=[4,8]",
    "lightweight.num_res_units=0",
    "runtime.clients=actors",
]
SOON = Autoscaling(placement_seconds=1)


@pytest.fixture(scope="module", autouse=True)
def _a_gpu() -> Iterator[None]:
    import ray

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=1,
            include_dashboard=False,
            object_store_memory=80 * 2**20,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
        yield
        ray.shutdown()


def test_shares_of_clients_and_foundation_model_are_placed_on_one_gpu() -> None:
    """``auto`` for three clients: 3 x 0.1666 beside 0.5; all four actors live at once."""
    import ray

    from dsfedmed_ray.runtime.placement import Placement

    class Actor:
        def gpus(self) -> list[str]:
            return list(ray.get_runtime_context().get_accelerator_ids()["GPU"])

    foundation, client = resolve_gpu_fractions(Demand(), Demand(), 3, 1.0)
    placements = {
        Placement("clients", [client] * 3, spread=True): 3,
        Placement("the foundation model", [foundation]): 1,
    }
    actors = [
        ray.remote(Actor).options(**placement.options(index)).remote()
        for placement, number in placements.items()
        for index in range(number)
    ]
    assert ray.get([actor.gpus.remote() for actor in actors], timeout=60) == [["0"]] * 4
    for actor in actors:
        ray.kill(actor)
    for placement in placements:
        placement.release()


def test_who_finds_no_place_is_told_who_has_it() -> None:
    """Clients hold 3 x 0.25, a stranger 0.1: of the GPU 0.15 is free, and 0.5 is asked for."""
    import ray

    from dsfedmed_ray.runtime.placement import Placement

    class Stranger:
        def here(self) -> bool:
            return True

    stranger = ray.remote(Stranger).options(num_cpus=0, num_gpus=0.1).remote()
    assert ray.get(stranger.here.remote(), timeout=60)
    clients = Placement("clients", [Demand(num_gpus=0.25)] * 3)
    message = (
        r"the foundation model asked for 1 x \(0\.5 GPU\) and were not placed within 1 s "
        r"\(runtime\.autoscaling\.placement_seconds\); free now: 0\.15 GPU; held: "
        r"clients [0-9a-f]{4} 0\.75 GPU; other actors and tasks 0\.1 GPU; ask for less, or wait"
    )
    with pytest.raises(ResourceError, match=message) as caught:
        Placement("the foundation model", [Demand(num_gpus=0.5)], autoscaling=SOON)
    assert "\n" not in str(caught.value)
    ray.kill(stranger)
    clients.release()


def test_a_node_that_may_come_is_waited_for_and_named() -> None:
    """Nothing starts nodes here, so the time runs out; without the node type nothing waits."""
    from dsfedmed_ray.runtime.placement import Placement

    demands = [Demand(num_gpus=0, resources={"client_gpu": 1})]
    worker = NodeType(max_nodes=1, resources={"CPU": 4, "client_gpu": 1})
    growing = Autoscaling(node_types=[worker], placement_seconds=1)
    with pytest.raises(ResourceError, match=r"asked for 1 x \(1 client_gpu\) .* within 1 s"):
        Placement("clients", demands, autoscaling=growing)
    with pytest.raises(ResourceError, match=r"clients ask for 1 client_gpu in all .* has 0; lower"):
        Placement("clients", demands)


def test_a_generator_has_the_foundation_models_half() -> None:
    """Beside the clients' half one generator fits, with its half a CPU on the same node."""
    from dsfedmed_ray.runtime.placement import Placement

    foundation, client = resolve_gpu_fractions(Demand(), Demand(), 3, 1.0)
    asked = resolve_generators(Demand(num_cpus=0.5), 2, foundation, [client] * 3, 1.0)
    assert [demand.bundle() for demand in asked] == [{"CPU": 0.5, "GPU": 0.5}]
    clients = Placement("clients", [client] * 3)
    Placement("generators", [*asked, Demand(num_cpus=1.0, num_gpus=0)]).release()
    clients.release()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["client.num_gpus=0.25", "foundation.num_gpus=0.5"],
            "clients and the foundation model ask for 1.25 GPU in all (clients 0.75, the foundation"
            " model 0.5), the cluster has 1; lower runtime.resources.client, runtime.resources."
            "foundation or foundation.num_workers, or add nodes",
        ),
        (
            ["generator.num_gpus=0", "num_generators=4"],
            "generators and the data pipeline ask for 3 CPU in all (generators 2, the data "
            "pipeline 1), the cluster has 2; lower runtime.resources.num_generators, runtime."
            "resources.generator or runtime.resources.client, or add nodes",
        ),
        (
            ["generator.num_gpus=0.4"],
            "clients and generators ask for 1.2998 GPU in all (clients 0.4998, generators 0.8), "
            "the cluster has 1; lower runtime.resources.num_generators, runtime.resources."
            "generator or runtime.resources.client, or add nodes",
        ),
        (
            ["+generator.resources.scanner=1"],
            "generators ask for 1 scanner in all (1 actor), the cluster has 0; lower runtime."
            "resources.num_generators, runtime.resources.generator or runtime.resources.client, "
            "or add nodes",
        ),
        (["num_generators=0"], "runtime.resources.num_generators is 0; at least 1"),
    ],
)
def test_what_can_never_run_together_is_refused_before_anything_is_made(
    overrides: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three clients on 2 CPUs and 1 GPU; by ``auto`` they hold 3 x 0.1666 = 0.4998 of it."""
    monkeypatch.chdir(tmp_path)
    keys = [re.sub(r"^(\+?)", r"\1runtime.resources.", override) for override in overrides]
    assert main(["run", *TINY, *keys]) == 2
    assert capsys.readouterr().err == f"dsfedmed: error: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_method_without_foundation_model_needs_no_room_for_it() -> None:
    clients = Demand(num_gpus=0.5)
    foundation = Demand(num_gpus=1, resources={"foundation": 1})
    generator = Demand(num_cpus=8, num_gpus=0)
    runtime = RuntimeConfig(
        clients="actors",
        resources=Resources(client=clients, foundation=foundation, generator=generator),
    )
    notes: list[str] = []
    with open_engine(runtime, 2, notes.append, uses_foundation=False):
        assert notes[0].startswith("Ray: 2 client actors (one actor a client), 2 CPUs, 1 GPUs")
    with pytest.raises(ResourceError, match="ask for"), open_engine(runtime, 2, notes.append):
        pass
