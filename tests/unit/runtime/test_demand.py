"""Demands in Ray's units, and the fair fraction of a GPU."""

import pytest

from dsfedmed_ray.errors import ConfigurationError, ResourceError
from dsfedmed_ray.runtime.demand import Demand, resolve_generators, resolve_gpu_fractions


def shares(num_clients: int, num_gpus: float) -> tuple[object, object]:
    foundation, client = resolve_gpu_fractions(Demand(), Demand(), num_clients, num_gpus)
    return foundation.num_gpus, client.num_gpus


def test_auto_is_nothing_without_gpus() -> None:
    assert shares(4, 0.0) == (0.0, 0.0)


def test_one_gpu_is_halved() -> None:
    """0.5 for the foundation model and 0.5 / 3 = 0.1666 for each client, rounded down to 1e-4."""
    assert shares(3, 1.0) == (0.5, 0.1666)


@pytest.mark.parametrize("num_clients", [1, 3, 7, 64, 999])
@pytest.mark.parametrize("num_gpus", [1.0, 2.0, 8.0])
def test_shares_never_exceed_what_there_is(num_clients: int, num_gpus: float) -> None:
    foundation, client = shares(num_clients, num_gpus)
    assert isinstance(foundation, float)
    assert isinstance(client, float)
    assert foundation + num_clients * client <= num_gpus + 1e-9
    assert client <= 1.0


def test_more_gpus_give_the_foundation_model_one_of_its_own() -> None:
    assert shares(3, 4.0) == (1.0, 1.0)
    assert shares(4, 2.0) == (1.0, 0.25)


def test_a_method_without_foundation_model_leaves_all_to_the_clients() -> None:
    """1 / 3 = 0.3333, rounded down to 1e-4; of four GPUs two clients take one each."""
    for num_clients, num_gpus, share in ((3, 1.0, 0.3333), (2, 4.0, 1.0)):
        foundation, client = resolve_gpu_fractions(
            Demand(), Demand(), num_clients, num_gpus, uses_foundation=False
        )
        assert (foundation.num_gpus, client.num_gpus) == (0.0, share)


def test_a_number_is_a_demand() -> None:
    asked = Demand(num_cpus=1.0, num_gpus=0.25, resources={"fast": 1})
    _, client = resolve_gpu_fractions(Demand(), asked, 100, 1.0)
    assert client == asked


def test_auto_keeps_the_other_resources() -> None:
    foundation, _ = resolve_gpu_fractions(
        Demand(num_cpus=2.0, resources={"foundation": 1}), Demand(), 2, 1.0
    )
    assert foundation.bundle() == {"CPU": 2.0, "GPU": 0.5, "foundation": 1}


def test_bundles_leave_zeros_out() -> None:
    assert Demand(num_cpus=0.0, num_gpus=0.0).bundle() == {}
    with pytest.raises(ValueError, match="resolve 'auto' first"):
        Demand().bundle()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_cpus": -1.0}, r"num_cpus is -1\.0; allowed: 0 or more$"),
        ({"num_gpus": -0.5}, r"num_gpus is -0\.5; allowed: 0 or more, or 'auto'"),
        ({"num_gpus": "half"}, r"num_gpus is 'half'; allowed: 0 or more, or 'auto'"),
        ({"resources": {"fast": -1}}, r"fast is -1; allowed: 0 or more$"),
        ({"num_gpus": 1.5}, r"num_gpus is 1\.5; allowed: a fraction up to 1, or whole GPUs$"),
    ],
)
def test_impossible_demands(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Demand(**changes)  # type: ignore[arg-type]


def test_workers_of_a_shared_adaptation_have_a_gpu_each() -> None:
    """Of four GPUs three workers take three; two clients share the last one."""
    foundation, client = resolve_gpu_fractions(Demand(), Demand(), 2, 4.0, 3)
    assert (foundation.num_gpus, client.num_gpus) == (1.0, 0.5)
    foundation, client = resolve_gpu_fractions(Demand(), Demand(), 2, 0.0, 3)
    assert (foundation.num_gpus, client.num_gpus) == (0.0, 0.0)


def test_gpus_that_are_not_enough_for_the_workers() -> None:
    with pytest.raises(ResourceError, match=r"num_workers=2 needs 2 GPUs and leaves 0 of 2 to the"):
        resolve_gpu_fractions(Demand(), Demand(), 2, 2.0, 2)
    without = Demand(num_gpus=0)
    assert resolve_gpu_fractions(Demand(), without, 2, 2.0, 2)[0].num_gpus == 1.0
    with pytest.raises(ResourceError, match=r"num_gpus is 0.5, .* use whole GPUs or 0"):
        resolve_gpu_fractions(Demand(num_gpus=0.5), Demand(), 2, 2.0, 2)


@pytest.mark.parametrize(
    ("num_gpus", "num_clients", "client", "expected"),
    [
        (0.0, 4, "auto", [0.0, 0.0, 0.0]),
        (1.0, 4, "auto", [0.5]),  # clients leave half, the foundation model's share
        (2.0, 4, "auto", [1.0]),  # clients leave one GPU
        (2.0, 4, 0, [1.0, 1.0]),  # clients leave two
        (8.0, 2, 0.5, [1.0, 1.0, 1.0]),  # clients leave seven, and three are wanted
        (1.0, 4, 0.25, [0.5]),  # clients leave nothing; the check of the room refuses it
    ],
)
def test_generators_share_what_clients_leave(
    num_gpus: float, num_clients: int, client: float | str, expected: list[float]
) -> None:
    foundation, one = resolve_gpu_fractions(
        Demand(), Demand(num_gpus=client), num_clients, num_gpus
    )
    asked = resolve_generators(
        Demand(num_cpus=0.5, resources={"fast": 1}), 3, foundation, [one] * num_clients, num_gpus
    )
    assert [demand.num_gpus for demand in asked] == expected
    assert {(demand.num_cpus, demand.resources["fast"]) for demand in asked} == {(0.5, 1)}


def test_generators_that_ask_for_a_number_get_it() -> None:
    generator = Demand(num_cpus=0.5, num_gpus=0.25)
    assert resolve_generators(generator, 2, Demand(num_gpus=1), [], 1.0) == [generator] * 2
