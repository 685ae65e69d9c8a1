"""Stage 4: one pass over the pool from kept embeddings."""

import math

import pytest
import torch
from torch import Tensor, nn

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.foundation_adaptation import (
    Adaptation,
    BatchShare,
    adapt_one_epoch,
    shift_to_prior,
)
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
            decoder, optimizer, Rows(), masks, config, epoch, torch_generator(0, "adapt", epoch)
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


def test_clipping_bounds_the_step() -> None:
    """With plain SGD at rate 1 a step is the clipped gradient: its norm is 1e-3, not more."""
    decoder = nn.Conv2d(1, 1, 1)
    before = [p.detach().clone() for p in decoder.parameters()]
    optimizer = torch.optim.SGD(decoder.parameters(), lr=1.0)
    embeddings, masks = torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.uint8)
    config = Adaptation(epochs=1, batch_size=2, gradient_clip=1e-3, learning_rate=1.0)
    adapt_one_epoch(decoder, optimizer, embeddings, masks, config, 0, torch_generator(0, "adapt"))
    moved = [(p - b).norm() for p, b in zip(decoder.parameters(), before, strict=True)]
    assert torch.stack(moved).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_logits_are_shifted_to_the_prior() -> None:
    """Mean logit -20 and one pixel of four in the foreground: logit(1/4) = -ln 3, so 20 - ln 3.

    The second structure has no foreground; its share counts as 1e-4, log-odds -9.2102.
    """
    masks = torch.zeros(3, 2, 2, 2, dtype=torch.uint8)
    masks[:, 0, 0, 0] = 1
    embeddings = torch.tensor([-19.0, -20.0, -21.0])
    shift = shift_to_prior(
        lambda rows: rows.view(-1, 1, 1, 1).expand(-1, 2, 2, 2), embeddings, masks, batch_size=2
    )
    assert shift.tolist() == pytest.approx([20 - math.log(3), 20 - 9.21024], abs=1e-4)


@pytest.mark.parametrize(
    "name", ["epochs", "batch_size", "learning_rate", "positive_weight", "gradient_clip"]
)
def test_impossible_settings(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"method\.adaptation\.{name} is 0; it must be positive"
    ):
        Adaptation(**{name: 0})


def test_two_workers_share_a_batch() -> None:
    """Of five rows worker 0 has three, worker 1 two: weights 3 * 2 / 5 and 2 * 2 / 5.

    Losses of 1 to 5 have means of 3 (1, 3, 5) and 3 (2, 4); half of 1.2 * 3 + 0.8 * 3 is 3 again.
    """
    batch = torch.tensor([1, 2, 3, 4, 5])
    (even, weight_0), (odd, weight_1) = (BatchShare(rank, 2).of(batch) for rank in (0, 1))
    assert (even.tolist(), odd.tolist()) == ([1, 3, 5], [2, 4])
    assert (weight_0, weight_1) == pytest.approx((1.2, 0.8))
    whole, weight = BatchShare().of(batch)
    assert (whole.tolist(), weight) == (batch.tolist(), 1.0)


def test_a_worker_without_a_row_counts_nothing() -> None:
    row, weight = BatchShare(rank=1, num_workers=2).of(torch.tensor([7]))
    assert (row.tolist(), weight) == ([7], 0.0)


def test_a_batch_is_shared_evenly() -> None:
    with pytest.raises(ConfigurationError, match=r"batch_size is 4, .*num_workers=3 cannot share"):
        Adaptation(num_workers=3)
    with pytest.raises(ConfigurationError, match=r"foundation.num_workers is 0; at least 1"):
        Adaptation(num_workers=0)
