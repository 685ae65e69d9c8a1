"""Stage 4: one pass over the pool from kept embeddings."""

import pytest
import torch
from torch import Tensor, nn

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.foundation_adaptation import Adaptation, adapt_one_epoch
from dsfedmed_ray.seeding import torch_generator


def adapted(config: Adaptation, seen: list[int] | None = None) -> tuple[nn.Module, list[float]]:
    """A one-parameter decoder whose embeddings show the mask with the wrong sign."""
    torch.manual_seed(0)
    decoder = nn.Conv2d(1, 1, 1)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=config.learning_rate)
    masks = (torch.arange(7 * 16).view(7, 1, 4, 4) % 3 == 0).to(torch.uint8)
    embeddings = (0.5 - masks.float()).to(torch.float16)

    class Rows:
        def __getitem__(self, indices: Tensor) -> Tensor:
            if seen is not None:
                seen.extend(indices.tolist())
            return embeddings[indices]

    losses = [
        adapt_one_epoch(
            decoder, optimizer, Rows(), masks, config, torch_generator(0, "adapt", epoch)
        )
        for epoch in range(config.epochs)
    ]
    return decoder, losses


def test_an_epoch_reads_every_embedding_once() -> None:
    seen: list[int] = []
    adapted(Adaptation(epochs=1, batch_size=3), seen)
    assert sorted(seen) == list(range(7))
    assert seen != list(range(7))


def test_it_learns_the_masks() -> None:
    _, losses = adapted(Adaptation(epochs=40, batch_size=3, learning_rate=0.2))
    assert losses[-1] < 0.3 * losses[0]


def test_the_same_streams_give_the_same_bits() -> None:
    config = Adaptation(epochs=2)
    first, second = (next(adapted(config)[0].parameters()).detach() for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate", "positive_weight"])
def test_impossible_settings(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"method\.adaptation\.{name} is 0; it must be positive"
    ):
        Adaptation(**{name: 0})
