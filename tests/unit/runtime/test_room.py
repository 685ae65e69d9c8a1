"""What a cluster can ever hold, and in which words the rest is refused."""

import pytest

from dsfedmed_ray.errors import ConfigurationError, ResourceError
from dsfedmed_ray.runtime.room import Autoscaling, ClusterRoom, NodeType

HEAD = {"CPU": 8.0, "GPU": 1.0, "foundation": 1.0, "memory": 1e9}
WORKER = {"CPU": 4.0, "GPU": 1.0, "client_gpu": 1.0}


def growing(nodes: list[dict[str, float]], max_nodes: int = 3) -> ClusterRoom:
    """A cluster whose autoscaler may start workers with a GPU."""
    autoscaling = Autoscaling(node_types=[NodeType(max_nodes=max_nodes, resources=WORKER)])
    return ClusterRoom(nodes=nodes, to_come=autoscaling.nodes_to_come(nodes))


def test_what_the_autoscaler_can_bring_is_possible() -> None:
    """Three clients want a worker's resource each; the head has none, three workers may come."""
    clients = {"clients": [{"GPU": 0.25, "client_gpu": 1.0}] * 3}
    growing([HEAD]).require(clients)
    with pytest.raises(
        ResourceError, match=r"clients ask for 3 client_gpu in all .* cluster has 0;"
    ):
        ClusterRoom(nodes=[HEAD]).require(clients)


def test_workers_that_have_come_do_not_come_again() -> None:
    """Of three workers two are there: one may come, and the sum stays three."""
    room = growing([HEAD, WORKER | {"memory": 5e8}, WORKER])
    assert len(room.to_come) == 1
    room.require({"clients": [{"client_gpu": 1.0}] * 3})
    message = (
        r"clients ask for 4 client_gpu in all \(4 actors\), the cluster has 2 and may grow to 3 by "
        r"runtime\.autoscaling; lower runtime\.resources or runtime\.num_workers, or add nodes"
    )
    with pytest.raises(ResourceError, match=message):
        room.require({"clients": [{"client_gpu": 1.0}] * 4})


def test_more_workers_than_the_file_says() -> None:
    """Somebody started a second worker by hand where one may be started."""
    assert growing([HEAD, WORKER, WORKER], max_nodes=1).to_come == ()


def test_groups_at_the_same_time_are_summed() -> None:
    """3 x 0.25 for the clients and 0.5 beside them are 1.25 of one GPU; CPUs are enough."""
    clients = [{"GPU": 0.25, "CPU": 1.0}] * 3
    room = ClusterRoom(nodes=[HEAD])
    room.require({"clients": clients})
    message = (
        r"clients and the foundation model ask for 1\.25 GPU in all \(clients 0\.75, "
        r"the foundation model 0\.5\), the cluster has 1; lower these, or add nodes"
    )
    with pytest.raises(ResourceError, match=message) as caught:
        room.require({"clients": clients, "the foundation model": [{"GPU": 0.5}]}, "these")
    assert "\n" not in str(caught.value)


def test_one_actor_lives_on_one_node() -> None:
    """Two nodes have two GPUs, and none of them has two."""
    room = ClusterRoom(nodes=[HEAD, WORKER])
    message = r"clients: one actor asks for 2 GPU, and no single node can have that; lower"
    with pytest.raises(ResourceError, match=message):
        room.require({"clients": [{"GPU": 2.0}]})
    with pytest.raises(ResourceError, match=r"one actor asks for 1 foundation, 1 client_gpu, and"):
        room.require({"clients": [{"foundation": 1.0, "client_gpu": 1.0}]})


def test_a_cluster_that_grows_is_waited_for() -> None:
    """Half a minute for what is there, a quarter of an hour for machines that boot."""
    assert Autoscaling().seconds == 30
    assert Autoscaling(node_types=[NodeType(max_nodes=1, resources=WORKER)]).seconds == 900
    assert Autoscaling(placement_seconds=2).seconds == 2


def test_impossible_settings() -> None:
    with pytest.raises(ConfigurationError, match=r"autoscaling: max_nodes is 0; at least 1"):
        NodeType(max_nodes=0, resources=WORKER)
    with pytest.raises(ConfigurationError, match=r"placement_seconds is 0; at least 1"):
        Autoscaling(placement_seconds=0)
