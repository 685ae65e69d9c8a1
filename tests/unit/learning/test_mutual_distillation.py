"""Two models that teach each other by exchanging logits."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.augmentation import Augmentation
from dsfedmed_ray.learning.mutual_distillation import (
    Distillation,
    PoolLearner,
    distillation_loss,
)

LOG3 = math.log(3.0)  # the logit of probability 0.75
PLAIN = Distillation(augmentation=None)


def maps(*pixels: float) -> Tensor:
    """One sample a number, one structure, one pixel."""
    return torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 1, 1)


def test_loss_by_hand() -> None:
    """One pixel, p = 0.75, other 0.5, mask 1.

    Cross-entropy -log 0.75; soft Dice 1 - (1.5 + 1) / (1.75 + 1) = 1 / 11; both divergences
    together 0.25 log 3; weights 0.9 and 0.1 * T**2 with T = 1.
    """
    supervised = -math.log(0.75) + 1 / 11
    loss = distillation_loss(maps(LOG3), maps(0), maps(1), PLAIN)
    assert loss.item() == pytest.approx(0.9 * supervised + 0.1 * 0.25 * LOG3)


def test_temperature_scales_the_divergence_by_its_square() -> None:
    """At T = 2 logits 2 log 3 and 0 diverge by 0.25 log 3, times 4."""
    config = Distillation(temperature=2.0, supervised_weight=0.0, kl_weight=1.0)
    loss = distillation_loss(maps(2 * LOG3), maps(0), maps(1), config)
    assert loss.item() == pytest.approx(4 * 0.25 * LOG3)


def test_held_logits_are_compared_and_the_mask_is_met_by_all_of_them() -> None:
    """Logits of 30 and 50 agree within +-log 3; 0 and -50 then differ by 0.25 log 3."""
    config = Distillation(supervised_weight=0.0, kl_weight=1.0, logit_limit=LOG3)
    loss = distillation_loss(maps(30.0, 0.0), maps(50.0, -50.0), maps(1, 1), config)
    assert loss.item() == pytest.approx((0.0 + 0.25 * LOG3) / 2)
    supervised = Distillation(supervised_weight=1.0, kl_weight=0.0, logit_limit=LOG3)
    sure = distillation_loss(maps(30.0), maps(0.0), maps(1), supervised)
    assert sure.item() == pytest.approx(0.0, abs=1e-6)


def test_counted_rows_are_averaged_among_themselves() -> None:
    """Divergences 0.25 log 3, 0 and 0.25 log 3; the first two count: their mean is half of it."""
    config = Distillation(supervised_weight=0.0, kl_weight=1.0)
    logits, other, masks = maps(LOG3, 0, -LOG3), maps(0, 0, 0), maps(1, 1, 1)
    counted = torch.tensor([True, True, False])
    loss = distillation_loss(logits, other, masks, config, counted)
    assert loss.item() == pytest.approx(0.125 * LOG3)
    none = distillation_loss(logits, other, masks, config, torch.zeros(3, dtype=torch.bool))
    assert none.item() == 0.0


def test_the_learning_rate_falls_linearly_over_the_epochs() -> None:
    """From 1 to 0.25 over four epochs in steps of 0.25; a single epoch has the whole rate."""
    config = Distillation(epochs=4, final_rate=0.25)
    assert [config.rate_factor(epoch) for epoch in range(4)] == pytest.approx([1, 0.75, 0.5, 0.25])
    assert Distillation(epochs=1).rate_factor(0) == 1
    learner = PoolLearner(
        two_models()[0],
        torch.zeros(1, 3, 2, 2),
        torch.zeros(1, 2, 2, 2),
        learning_rate=0.8,
        config=config,
    )
    learner.start_epoch(2)
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.4)


def test_the_learning_rate_climbs_to_its_place_first() -> None:
    """Three epochs of warm-up: 1/4, 2/4, 3/4 of 1, 0.9, 0.8; then 0.7 and 0.6 as without it."""
    config = Distillation(epochs=5, final_rate=0.6, warmup_epochs=3)
    rates = [config.rate_factor(epoch) for epoch in range(5)]
    assert rates == pytest.approx([0.25, 0.45, 0.6, 0.7, 0.6])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup_epochs": -1}, r"warmup_epochs is -1; at least 0 \(no warm-up\)"),
        ({"final_rate": 0.0}, r"final_rate is 0.0; allowed: above 0 up to 1"),
        ({"final_rate": 1.5}, r"final_rate is 1.5; allowed: above 0 up to 1"),
        ({"tolerance": 1.1}, r"method.distillation.tolerance is 1.1; allowed: 0 \(the best"),
        ({"tolerance": -0.1}, r"method.distillation.tolerance is -0.1; allowed: 0 \(the best"),
    ],
)
def test_rates_and_tolerances_out_of_range_are_refused(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Distillation(**settings)  # type: ignore[arg-type]


def two_models() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 2, 1))
    return wide, nn.Conv2d(3, 2, 3, padding=1)


def pool(num: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (num, 3, 8, 8), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, 2, (num, 2, 8, 8), generator=generator, dtype=torch.uint8)
    return images, masks


def test_exchanged_logits_give_the_gradients_of_one_joint_graph() -> None:
    """Both losses in one backward pass, each model's logits detached in the other's loss.

    The joint loss is written out here with Bernoulli divergences term by term.
    """
    images, masks = pool()
    rows = torch.tensor([4, 1, 3])
    config = Distillation(temperature=1.5, positive_weight=2.0, gradient_clip=torch.inf)
    learners = [
        PoolLearner(model, images, masks, learning_rate=0.01, config=config)
        for model in two_models()
    ]
    sent = [learner.begin(rows) for learner in learners]
    losses = [
        learner.finish(other, None) for learner, other in zip(learners, sent[::-1], strict=True)
    ]

    inputs, targets = images[rows].float() / 255, masks[rows].float()
    joint = two_models()
    logits = [model(inputs) for model in joint]
    total = sum(
        0.9 * supervised_by_hand(own, targets) + 0.1 * 1.5**2 * kl_by_hand(own, other.detach(), 1.5)
        for own, other in (logits, logits[::-1])
    )
    assert isinstance(total, Tensor)
    total.backward()
    assert sum(losses) == pytest.approx(total.item(), rel=1e-5)
    for learner, model in zip(learners, joint, strict=True):
        for own, expected in zip(learner.model.parameters(), model.parameters(), strict=True):
            assert own.grad is not None
            assert expected.grad is not None
            assert torch.allclose(own.grad, expected.grad, atol=1e-6)


def kl_by_hand(own: Tensor, other: Tensor, temperature: float) -> Tensor:
    p, q = (own / temperature).sigmoid(), (other / temperature).sigmoid()

    def one_way(a: Tensor, b: Tensor) -> Tensor:
        return a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log()

    return (one_way(p, q) + one_way(q, p)).mean(dim=(2, 3)).sum(dim=1).mean()


def supervised_by_hand(logits: Tensor, masks: Tensor) -> Tensor:
    p = logits.sigmoid()
    entropy = -(2.0 * masks * p.log() + (1 - masks) * (1 - p).log()).mean(dim=(2, 3))
    overlap, total = (p * masks).sum(dim=(2, 3)), (p + masks).sum(dim=(2, 3))
    return (entropy + 1 - (2 * overlap + 1) / (total + 1)).sum(dim=1).mean()


def test_an_update_is_adams_from_the_kept_graph() -> None:
    images, masks = pool()
    model = two_models()[1]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    learner = PoolLearner(model, images, masks, learning_rate=0.01, config=PLAIN)
    own = learner.begin(torch.tensor([0, 1]))
    weight, bias = before
    assert torch.equal(own, F.conv2d(images[:2].float() / 255, weight, bias, padding=1))
    learner.finish(torch.zeros_like(own), None)
    moved = [
        (new.detach() - old).abs().max()
        for new, old in zip(model.parameters(), before, strict=True)
    ]
    assert all(value == pytest.approx(0.01, rel=1e-3) for value in moved)  # Adam's first step
    with pytest.raises(RuntimeError, match=r"finish\(\) without begin\(\)"):
        learner.finish(torch.zeros_like(own), None)


def test_exchanged_logits_speak_of_the_same_pixels() -> None:
    """A model without a neighbourhood commutes with turns, so turning is not seen outside."""
    images, masks = pool()
    torch.manual_seed(0)
    model = nn.Conv2d(3, 2, 1)
    turning = Augmentation(brightness=0.0, contrast=0.0, gamma=0.0, colour=0.0)
    learner = PoolLearner(
        model, images, masks, learning_rate=0.01, config=PLAIN, augmentation=turning
    )
    expected = model(images[:3].float() / 255)
    for step in range(8):
        logits = learner.begin(torch.arange(3), 0, "step", step)
        assert torch.allclose(logits, expected, atol=1e-4)


def test_pool_logits_are_in_order_and_leave_no_trace() -> None:
    """Batches of 4 and 2 of a pool of six; a dropout layer is off."""
    images, masks = pool()
    model = nn.Sequential(two_models()[1], nn.Dropout(0.5))
    learner = PoolLearner(
        model, images, masks, learning_rate=0.01, config=Distillation(batch_size=4)
    )
    logits = learner.pool_logits()
    assert torch.allclose(logits, model.eval()(images.float() / 255), atol=1e-5)
    assert not logits.requires_grad


def test_embeddings_are_taken_as_they_are() -> None:
    """Half-precision rows are inputs of a decoder, not pixels: nothing is divided by 255."""
    _, masks = pool()
    rows = torch.rand(6, 3, 8, 8).half()
    model = two_models()[1]
    learner = PoolLearner(model, rows, masks, learning_rate=0.01, config=PLAIN)
    assert torch.allclose(learner.pool_logits(), model(rows.float()), atol=1e-5)


def test_epochs_in_which_the_foundation_model_learns_and_clients_judge() -> None:
    """Of six epochs: 0 and 4 with every four; judged after 1, 3 and 5 with every two.

    The last is judged whatever the interval; one way the foundation model never learns.
    """
    config = Distillation(epochs=6, foundation_every=4, validate_every=2)
    assert [epoch for epoch in range(6) if config.foundation_learns(epoch)] == [0, 4]
    assert [epoch for epoch in range(6) if config.validates(epoch)] == [1, 3, 5]
    rare = Distillation(epochs=6, mutual=False, validate_every=4)
    assert [epoch for epoch in range(6) if rare.validates(epoch)] == [3, 5]
    assert not any(rare.foundation_learns(epoch) for epoch in range(6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, r"distillation\.epochs is 0; it must be positive"),
        ({"foundation_every": 0}, r"foundation_every is 0; it must be positive"),
        ({"validate_every": 0}, r"validate_every is 0; it must be positive"),
        ({"logit_limit": 0.0}, r"distillation\.logit_limit is 0\.0; it must be positive"),
        ({"temperature": 0.0}, r"distillation\.temperature is 0\.0; it must be positive"),
        ({"kl_weight": -0.1}, r"distillation\.kl_weight is -0\.1; it cannot be negative"),
        ({"placement": "client"}, r"distillation\.placement is 'client'; allowed: server, clients"),
        ({"placement": "clients"}, r"serves targets one way; set .*\.mutual=false too"),
    ],
)
def test_impossible_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Distillation(**changes)  # type: ignore[arg-type]
