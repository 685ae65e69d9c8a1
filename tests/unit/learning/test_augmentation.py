"""Geometry that can be undone, and light that stays light."""

import pytest
import torch

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.augmentation import (
    Augmentation,
    draw_turn,
    turn,
    turn_back,
    vary_light,
)
from dsfedmed_ray.seeding import torch_generator


def images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("symmetry", range(8))
def test_turning_back_undoes_turning(symmetry: int) -> None:
    assert torch.equal(turn_back(turn(images(), symmetry), symmetry), images())


def test_the_eight_symmetries_are_all_different() -> None:
    assert len({turn(images(1), symmetry).numpy().tobytes() for symmetry in range(8)}) == 8


def test_turns_reach_all_symmetries() -> None:
    generator = torch_generator(0, "turns")
    assert {draw_turn(generator) for _ in range(200)} == set(range(8))


def test_light_stays_in_range() -> None:
    """Even at the largest settings, and on images that are all black or all white."""
    strong = Augmentation(brightness=0.99, contrast=0.99, gamma=0.99, colour=0.99)
    batch = torch.cat([images(), torch.zeros(1, 3, 6, 6), torch.ones(1, 3, 6, 6)])
    for seed in range(20):
        varied = vary_light(batch, strong, torch_generator(seed))
        assert varied.min() >= 0.0
        assert varied.max() <= 1.0
        assert not varied.isnan().any()


def test_light_off_changes_nothing() -> None:
    off = Augmentation(brightness=0.0, contrast=0.0, gamma=0.0, colour=0.0)
    assert torch.allclose(vary_light(images(), off, torch_generator(0)), images(), atol=1e-4)


def test_the_same_stream_gives_the_same_batch() -> None:
    def drawn(seed: int) -> torch.Tensor:
        return vary_light(images(), Augmentation(), torch_generator(seed, "light"))

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))


def test_each_image_has_its_own_light() -> None:
    same = images(1).repeat(2, 1, 1, 1)
    varied = vary_light(same, Augmentation(), torch_generator(0))
    assert not torch.equal(varied[0], varied[1])


@pytest.mark.parametrize("name", ["brightness", "contrast", "gamma", "colour"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_impossible_strengths(name: str, value: float) -> None:
    message = rf"augmentation\.{name} is {value}; allowed: 0 \(off\) to below 1"
    with pytest.raises(ConfigurationError, match=message):
        Augmentation(**{name: value})  # type: ignore[arg-type]
