"""Grid points, and what makes a run of one."""

from typing import Any

import pytest

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.scaling.grid import GridPoint, ScalingGrid


def test_every_combination_once_small_ones_first() -> None:
    points = list(ScalingGrid(name="s", clients=[20, 10], workers=[2, 1]).points())
    assert [(p.clients, p.workers) for p in points] == [(10, 1), (10, 2), (20, 1), (20, 2)]
    assert {(p.gpus, p.population) for p in points} == {(0, None)}
    assert len({p.label for p in points}) == 4


def test_overrides_of_full_participation_and_of_a_population() -> None:
    everybody = GridPoint(clients=10, workers=2, gpus=0, population=None).overrides()
    assert "data.num_sites=10" in everybody
    assert "method.federated.clients_per_round=10" in everybody
    assert "runtime.num_workers=2" in everybody
    drawn = GridPoint(clients=10, workers=2, gpus=0, population=1000).overrides()
    assert "data.num_sites=1000" in drawn
    assert (
        "data.num_sites=2" in GridPoint(clients=1, workers=1, gpus=0, population=None).overrides()
    )


@pytest.mark.parametrize(
    ("workers", "gpus", "share"), [(2, 0, "0"), (3, 1, "0.3333"), (4, 4, "1"), (2, 4, "1")]
)
def test_workers_share_gpus_rounded_down(workers: int, gpus: int, share: str) -> None:
    """A third is 0.3333 in Ray's steps of 1e-4; a worker uses one GPU at most."""
    point = GridPoint(clients=10, workers=workers, gpus=gpus, population=None)
    assert f"runtime.resources.client.num_gpus={share}" in point.overrides()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clients": []}, r"scaling\.clients is \[\]; at least one number"),
        ({"workers": [1, 0]}, r"scaling\.workers is \[1, 0\]; .* each 1 or more"),
        ({"gpus": [1, 1]}, r"scaling\.gpus is \[1, 1\]; .* none twice"),
        ({"repeats": 0}, r"scaling\.repeats is 0; 1 or more"),
        ({"warmup_rounds": -1}, r"scaling\.warmup_rounds is -1; 0 or more"),
        ({"populations": [100, 5]}, r"scaling\.populations holds 5, .* cannot draw 10 clients"),
    ],
)
def test_impossible_grids(changes: dict[str, Any], message: str) -> None:
    settings = {"name": "s", "clients": [10], "workers": [1], **changes}
    with pytest.raises(ConfigurationError, match=message):
        ScalingGrid(**settings)
