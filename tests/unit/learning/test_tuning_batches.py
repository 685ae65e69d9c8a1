"""Batches of stage 1: what is drawn, and what is computed once."""

from collections.abc import Callable, Sequence

import pytest
import torch

from dsfedmed_ray.learning.generator_training import stack_pairs
from dsfedmed_ray.learning.tuning_batches import TuningBatches, View, jitter_colours, seen
from dsfedmed_ray.models.generator import EmbeddedGeneratorConfig, Generator
from dsfedmed_ray.records import Sample

Make = Callable[..., EmbeddedGeneratorConfig]


def batches_of(generator: Generator, pairs: Sequence[Sample]) -> TuningBatches:
    return TuningBatches(generator, *stack_pairs(pairs), None)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_view_that_is_kept_is_the_one_that_was_computed(
    toy_config: Make, pairs: Sequence[Sample]
) -> None:
    """The same stream twice: the second batch is answered from what the first one left."""
    batches = batches_of(toy_config(batch_size=8).build(), pairs)
    first, again = batches.draw(random()), batches.draw(random())
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.condition.control, again.condition.control)
    assert first.latents.shape[0] == first.masks.shape[0] == 8


def test_each_view_is_computed_once(
    toy_config: Make, pairs: Sequence[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five pairs, mirrored or not: at most ten computations, however many batches are drawn."""
    generator = toy_config(batch_size=8, colour_jitter=0.0).build()
    calls: list[int] = []
    measure = generator.space.measure

    def counted(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return measure(images, masks)

    monkeypatch.setattr(generator.space, "measure", counted)
    batches = batches_of(generator, pairs)
    for step in range(20):
        batches.draw(random(step))
    assert calls == [1] * 10


def test_recoloured_pairs_are_never_kept(
    toy_config: Make, pairs: Sequence[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a jitter of 1 each of 2 batches of 4 computes all of its pairs."""
    generator = toy_config(batch_size=4, colour_jitter=1.0).build()
    calls: list[int] = []
    encode = generator.space.encode
    monkeypatch.setattr(generator.space, "encode", lambda *given: calls.append(1) or encode(*given))
    batches = batches_of(generator, pairs)
    batches.draw(random(0))
    batches.draw(random(0))
    assert len(calls) == 8


def test_views_move_image_and_mask_alike() -> None:
    """A quarter turn of the mirrored 2x2 image [[1, 2], [3, 4]].

    Mirrored: [[2, 1], [4, 3]]; turned counter-clockwise: [[1, 3], [2, 4]].
    """
    image = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    moved, mask = seen(image, image * 10, View(0, flipped=True, quarters=1))
    assert moved.tolist() == [[[1.0, 3.0], [2.0, 4.0]]]
    assert torch.equal(mask, moved * 10)


def test_jitter_stays_in_range() -> None:
    stream = random()
    for _ in range(5):
        changed = jitter_colours(torch.rand(3, 8, 8), stream)
        assert changed.min() >= 0
        assert changed.max() <= 1
