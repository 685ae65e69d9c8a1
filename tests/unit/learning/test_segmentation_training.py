"""Supervised training on resident pairs."""

import numpy as np
import pytest
import torch
from torch import Generator, nn

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.augmentation import Augmentation
from dsfedmed_ray.learning.segmentation_training import (
    Pairs,
    SegmentationTraining,
    augmented,
    batches_of_indices,
    make_optimizer,
    num_processed,
    train_on_pairs,
)
from dsfedmed_ray.records import Sample
from dsfedmed_ray.seeding import torch_generator


def stream() -> Generator:
    return torch_generator(0, "test")


def toy_pairs(num: int = 5) -> Pairs:
    """The mask is where the first channel is bright."""
    random = np.random.default_rng(0)
    samples = []
    for index in range(num):
        image = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        mask = (image[:, :, :1] > 127).astype(np.uint8)
        samples.append(Sample(sample_id=str(index), image=image, mask=mask))
    return Pairs.of(samples)


def one_convolution() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 1, 1)


def test_pairs_are_channels_first_and_scaled_when_drawn() -> None:
    pairs = toy_pairs()
    assert pairs.images.shape == (5, 3, 8, 8)
    assert pairs.masks.shape == (5, 1, 8, 8)
    images, masks = pairs.batch(torch.tensor([4, 0]))
    assert torch.equal(images[1] * 255, pairs.images[0].float())
    assert torch.equal(masks[0], pairs.masks[4].float())
    with pytest.raises(ValueError, match="no samples"):
        Pairs.of([])


def test_an_epoch_sees_every_pair_once() -> None:
    """Five pairs in batches of 2: 2 + 2 + 1, the short batch kept, twice for two epochs."""
    config = SegmentationTraining(epochs=2, batch_size=2)
    batches = list(batches_of_indices(5, config, stream()))
    assert [len(batch) for batch in batches] == [2, 2, 1, 2, 2, 1]
    first, second = torch.cat(batches[:3]), torch.cat(batches[3:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == [0, 1, 2, 3, 4]
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("num", [3, 50])
def test_steps_are_the_same_number_for_every_site(num: int) -> None:
    config = SegmentationTraining(steps=7, batch_size=2)
    assert len(list(batches_of_indices(num, config, stream()))) == 7


def test_geometry_moves_the_mask_with_the_image() -> None:
    """The mask is a function of the image's pixels, so it still is after any turn."""
    images, masks = toy_pairs().batch(torch.arange(5))
    still = Augmentation(brightness=0.0, contrast=0.0, gamma=0.0, colour=0.0)
    for seed in range(8):
        moved, moved_masks = augmented(images, masks, still, torch_generator(seed))
        assert torch.equal((moved[:, :1] > 127.5 / 255).float(), moved_masks)


def test_training_learns_and_reports_steps() -> None:
    model = one_convolution()
    config = SegmentationTraining(
        epochs=30, batch_size=5, learning_rate=0.3, augmentation=None, optimizer="adamw"
    )
    seen: list[tuple[int, float]] = []
    mean = train_on_pairs(
        model,
        make_optimizer(model, config),
        toy_pairs(),
        config,
        stream(),
        on_step=lambda step, loss: seen.append((step, loss)),
    )
    assert [step for step, _ in seen] == list(range(30))
    assert seen[-1][1] < 0.5 * seen[0][1]
    assert mean == pytest.approx(np.mean([loss for _, loss in seen]), rel=1e-5)


def test_the_same_stream_trains_to_the_same_bits() -> None:
    def trained() -> bytes:
        model, config = one_convolution(), SegmentationTraining(epochs=2, batch_size=2)
        train_on_pairs(model, make_optimizer(model, config), toy_pairs(), config, stream())
        return model.weight.detach().numpy().tobytes()

    assert trained() == trained()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_optimizers_hold_trainable_parameters_only(name: str, kind: type) -> None:
    model = one_convolution()
    model.weight.requires_grad_(False)
    config = SegmentationTraining(optimizer=name, learning_rate=0.5)  # type: ignore[arg-type]
    optimizer = make_optimizer(model, config)
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(model.bias)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "lion"}, r"training\.optimizer is 'lion'; allowed: adam, adamw, sgd"),
        ({"epochs": 0}, r"training\.epochs is 0; it must be positive"),
        ({"batch_size": 0}, r"training\.batch_size is 0; it must be positive"),
        ({"learning_rate": -1.0}, r"training\.learning_rate is -1\.0; it must be positive"),
        ({"positive_weight": 0.0}, r"training\.positive_weight is 0\.0; it must be positive"),
        ({"steps": 0}, r"training\.steps is 0; at least 1, or null"),
    ],
)
def test_impossible_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SegmentationTraining(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("epochs", "steps"), [(1, None), (3, None), (1, 1), (1, 3), (1, 8)])
def test_the_number_of_processed_samples(epochs: int, steps: int | None) -> None:
    """Counted without drawing a batch."""
    config = SegmentationTraining(epochs=epochs, steps=steps, batch_size=2)
    drawn = sum(len(batch) for batch in batches_of_indices(5, config, stream()))
    assert num_processed(5, config) == drawn
