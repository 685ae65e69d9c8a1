"""The whole of DSFedMed in one plain file: no Ray, no pools, no stages, no checkpoints.

This is what the distributed run must agree with, to be read beside the paper (arXiv 2601.16073).
Models, data and named random streams come from the package; averaging, losses, adaptation, scores,
selection and distillation are written out here again.

Tuning a ControlNet and sampling from it (stages 1 and 2) are not: ``tune_generator``,
``plan_jobs`` and ``run_job`` are pure functions of their arguments, and a second diffusion sampler
would show nothing about federation.

In shapes: B images of a batch, N of the synthetic pool, C structures, S pixels a side.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.learning.generator_training import tune_generator
from dsfedmed_ray.learning.image_generation import plan_jobs, run_job
from dsfedmed_ray.models.segmenter import FoundationSegmenter, Segmenter, SegmenterConfig, State
from dsfedmed_ray.records import Sample
from dsfedmed_ray.seeding import derive_seed, torch_generator


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every number of the method; rates are Adam's."""

    seed: int = 0
    samples_per_client: int = 4  # stage 2
    rounds: int = 2  # stage 3
    local_epochs: int = 1
    local_batch: int = 4
    local_rate: float = 1e-3
    rate_decay: float = 0.96  # from round to round
    adaptation_epochs: int = 2  # stage 4
    adaptation_batch: int = 4
    adaptation_rate: float = 5e-4  # at its peak: up over a tenth of the steps, then down to a tenth
    clip: float = 1.0  # of gradient norms, in stages 4 and 5
    rule: str = "topk"  # stage 5, the paper's: the highest scores; or softmax, drawn by score
    ratio: float = 0.5
    reliability_weight: float = 0.5  # the paper's lambda
    every_epochs: int = 1  # between two passes of the foundation model over the pool
    distillation_epochs: int = 2
    distillation_batch: int = 4
    foundation_every: int = 1  # epochs from one in which the foundation model learns to the next
    temperature: float = 1.0
    logit_limit: float = float("inf")  # of both models, where they are compared
    supervised_weight: float = 0.9
    kl_weight: float = 0.1
    lightweight_rate: float = 3e-4  # without warm-up in the first epoch
    foundation_rate: float = 1e-4
    warmup_epochs: int = 0  # in which both rates climb
    final_rate: float = 0.1  # what is left of both in the last epoch
    tolerance: float = 0.01  # of Dice, by which a later state may lie below the best
    refinement_rounds: int = 1  # stage 6
    light: tuple[float, ...] = (0.4, 0.3, 0.1, 0.15)  # gamma, contrast, colour, brightness


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the method leaves behind, and what it chose on the way."""

    federated: State
    lightweight: State
    foundation: State
    kept: tuple[tuple[int, ...], ...]  # pool indices of each distillation epoch


def dsfedmed(
    split: SplitFederation,
    light: SegmenterConfig,
    big: SegmenterConfig,
    generator: Any,
    s: Settings,
) -> Outcome:
    """Runs the six stages, one after the other."""
    pool = synthesize(split, generator, s)
    data = split.federation
    shape = {"num_structures": len(data.structures), "image_size": data.image_size}
    lightweight, foundation = light.build(**shape, seed=s.seed), big.build(**shape, seed=s.seed)
    assert isinstance(foundation, FoundationSegmenter)
    federated = train_federated(split, lightweight, s)
    embeddings = embed(foundation, pool)
    adapt_foundation(foundation, embeddings, masks_of(pool), s)
    lightweight.load_trainable_state(federated)
    distilled, kept = distill_mutually(split, (lightweight, foundation), pool, embeddings, s)
    best = distilled
    if s.refinement_rounds:
        best = refine_federated(split, lightweight, distilled, federated, s)
    return Outcome(federated=federated, lightweight=best, foundation=copied(foundation), kept=kept)


# Stages 1 and 2: clients tune generators, the server draws the synthetic pool ------------------


def synthesize(split: SplitFederation, config: Any, s: Settings) -> list[Sample]:
    """One ControlNet a client, then its share of the pool; N samples sorted by id."""
    generator = config.build(device="cpu")
    uploads = {}
    for client in range(split.num_clients):
        name = split.client_name(client)
        seed = derive_seed(s.seed, "tune_generators", name)
        uploads[name] = tune_generator(generator, split.samples(name, "train"), seed=seed)
    pool: list[Sample] = []
    for name in sorted(uploads):
        others = [uploads[other].style for other in sorted(uploads) if other != name]
        share: dict[str, Any] = {"seed": s.seed, "other_styles": others}
        for job in plan_jobs(
            config, uploads[name], client=name, num_samples=s.samples_per_client, **share
        ):
            pool += run_job(generator, uploads[name], job)
    return sorted(pool, key=lambda sample: sample.sample_id)


# Stages 3 and 6: federated averaging -----------------------------------------------------------


def train_federated(split: SplitFederation, model: Segmenter, s: Settings) -> State:
    """FedAvg of the lightweight model; the state with the best seen validation Dice."""
    states = [copied(model)]
    for round_index in range(s.rounds):
        states.append(
            federated_round(split, model, states[-1], s, ("train_federated", round_index))
        )
    return chosen(split, model, states[1:], s)


def refine_federated(
    split: SplitFederation, model: Segmenter, distilled: State, federated: State, s: Settings
) -> State:
    """Rounds from the distilled model, their rates going on to fall; then one of three models."""
    refined = distilled
    for round_index in range(s.rounds, s.rounds + s.refinement_rounds):
        refined = federated_round(split, model, refined, s, ("refine_federated", round_index))
    return chosen(split, model, [federated, refined, averaged(refined, distilled)], s)


def chosen(split: SplitFederation, model: Segmenter, states: list[State], s: Settings) -> State:
    """By seen validation: the latest whose Dice is at most the tolerance below the best so far."""
    best, best_dice = states[0], -1.0
    for state in states:
        model.load_trainable_state(state)
        dice = seen_validation_dice(split, model)
        if dice > best_dice or (s.tolerance > 0 and dice >= best_dice - s.tolerance):
            best = state
        best_dice = max(best_dice, dice)
    return best


def averaged(state: State, other: State) -> State:
    """The mean of two models' weights."""
    return {
        name: (value + other[name]) / 2 if value.is_floating_point() else value
        for name, value in state.items()
    }


def federated_round(
    split: SplitFederation, model: Segmenter, server: State, s: Settings, name: tuple[str, int]
) -> State:
    """Every client trains the broadcast state; their mean. ``name`` is stage and round."""
    updates, weights = [], []
    for client in range(split.num_clients):
        model.load_trainable_state(server)  # broadcast
        pairs = list(split.samples(split.client_name(client), "train"))
        train_locally(model, pairs, s, (*name, client))
        updates.append(copied(model))
        weights.append(len(pairs))  # n_k
    return federated_mean(updates, weights)


def federated_mean(updates: list[State], weights: list[int]) -> State:
    """sum_k n_k w_k / sum_k n_k in float64; counters of batches take the largest."""
    mean: State = {}
    for name, first in updates[0].items():
        entries = [update[name] for update in updates]
        if not first.is_floating_point():
            mean[name] = torch.stack(entries).max(dim=0).values
            continue
        total = torch.zeros_like(first, dtype=torch.float64)
        for entry, weight in zip(entries, weights, strict=True):
            total += weight * entry.double()
        mean[name] = (total / sum(weights)).float()
    return mean


def train_locally(
    model: Segmenter, pairs: list[Sample], s: Settings, name: tuple[str, int, int]
) -> None:
    """Adam from scratch over a client's own pairs; ``name`` is stage, round and client."""
    random = torch_generator(s.seed, *name, "batches")
    images, masks = images_of(pairs), masks_of(pairs)
    optimizer = adam(model, s.local_rate * s.rate_decay ** name[1])
    model.train()
    for _ in range(s.local_epochs):
        for rows in torch.randperm(len(pairs), generator=random).split(s.local_batch):
            symmetry = int(torch.randint(8, (), generator=random))
            x = vary_light(turn(images[rows], symmetry), s, random)  # [B, 3, S, S]
            m = turn(masks[rows], symmetry)  # [B, C, S, S]
            step(optimizer, supervised_loss(model(x), m).mean())


# Stage 4: the foundation model is adapted to the synthetic pool --------------------------------


def embed(big: FoundationSegmenter, pool: list[Sample]) -> Tensor:
    """The frozen encoder's output, image by image, kept in half precision."""
    big.eval()
    return torch.cat([big.embed(image).half() for image in images_of(pool).split(1)])  # [N, ...]


def adapt_foundation(
    big: FoundationSegmenter, embeddings: Tensor, masks: Tensor, s: Settings
) -> None:
    """Supervised by the masks that the images were generated from."""
    optimizer = adam(big, s.adaptation_rate)
    shift_to_prior(big, embeddings, masks)
    big.train()
    for epoch in range(s.adaptation_epochs):
        random = torch_generator(s.seed, "adapt_foundation", epoch)
        batches = torch.randperm(len(masks), generator=random).split(s.adaptation_batch)
        steps = s.adaptation_epochs * len(batches)
        for number, rows in enumerate(batches, start=epoch * len(batches)):
            rise, fall = (number + 1) / max(1, steps // 10), 1 - 0.9 * number / steps
            optimizer.param_groups[0]["lr"] = s.adaptation_rate * min(1.0, rise) * fall
            logits = big.decode(embeddings[rows].float())  # [B, C, S, S]
            step(optimizer, supervised_loss(logits, masks[rows]).mean(), clip=s.clip)


@torch.no_grad()
def shift_to_prior(big: FoundationSegmenter, embeddings: Tensor, masks: Tensor) -> None:
    """Logits start at the log-odds of the masks' foreground, structure by structure."""
    big.eval()
    z = torch.cat([big.decode(batch.float()) for batch in embeddings.split(4)])  # [N, C, S, S]
    share = masks.mean(dim=(0, 2, 3))
    big.shift_logits(torch.log(share / (1 - share)) - z.mean(dim=(0, 2, 3)))


# Stage 5: learnability-guided mutual distillation ----------------------------------------------


def distill_mutually(
    split: SplitFederation,
    models: tuple[Segmenter, FoundationSegmenter],
    pool: list[Sample],
    embeddings: Tensor,
    s: Settings,
) -> tuple[State, tuple[tuple[int, ...], ...]]:
    """Both models learn from the kept samples and from each other."""
    (light, big), images, masks = models, images_of(pool), masks_of(pool)
    light_optimizer, big_optimizer = adam(light, s.lightweight_rate), adam(big, s.foundation_rate)
    states = [copied(light)]
    latest = torch.zeros_like(masks, dtype=torch.float16)  # what the foundation model gave last
    history: list[tuple[int, ...]] = []
    for epoch in range(s.distillation_epochs):
        z_pool = latest.float()
        if epoch % s.every_epochs == 0:
            z_pool = logits_of(big, embeddings, s)  # [N, C, S, S]
            latest = z_pool.half()
        scores = learnability(light, z_pool, pool, s)  # [N]
        kept = select(scores, s, torch_generator(s.seed, "select_samples", epoch))
        history.append(tuple(kept.tolist()))
        light.train()
        big.train()
        left = 1 - (1 - s.final_rate) * epoch / max(1, s.distillation_epochs - 1)
        left *= min(1, (epoch + 1) / (s.warmup_epochs + 1))
        light_optimizer.param_groups[0]["lr"] = s.lightweight_rate * left
        big_optimizer.param_groups[0]["lr"] = s.foundation_rate * left
        random = torch_generator(s.seed, "distill_mutually", epoch, "batches")
        order = kept[torch.randperm(len(kept), generator=random)]
        for number, rows in enumerate(order.split(s.distillation_batch)):
            random = torch_generator(s.seed, "distill_mutually", epoch, number, "augmentation")
            symmetry = int(torch.randint(8, (), generator=random))
            x = vary_light(turn(images[rows], symmetry), s, random)
            z_light = turn_back(light(x), symmetry)  # [B, C, S, S], over the images' own pixels
            m = masks[rows]
            if epoch % s.foundation_every > 0:
                step(
                    light_optimizer, distillation_loss(z_light, latest[rows].float(), m, s), s.clip
                )
                continue
            z_big = big.decode(embeddings[rows].float())  # [B, C, S, S]
            latest[rows] = z_big.detach().half()
            # Each model sees the other's logits as constants.
            step(light_optimizer, distillation_loss(z_light, z_big.detach(), m, s), s.clip)
            step(big_optimizer, distillation_loss(z_big, z_light.detach(), m, s), s.clip)
        states.append(copied(light))
    # Before stage 6 the last epoch is handed on; else the federated model is a candidate, too.
    return states[-1] if s.refinement_rounds else chosen(split, light, states, s), tuple(history)


@torch.no_grad()
def learnability(light: Segmenter, z_big: Tensor, pool: list[Sample], s: Settings) -> Tensor:
    """s_i = lambda (-L_GT(i)) + (1 - lambda) L_KL(i), for all N samples of the pool."""
    light.eval()
    size, masks = s.distillation_batch, masks_of(pool)
    z_light = torch.cat([light(batch) for batch in images_of(pool).split(size)])  # [N, C, S, S]
    reliability = -cross_entropy(z_big.clamp(-s.logit_limit, s.logit_limit), masks)  # [N]
    disagreement = both_divergences(z_big, z_light, s)  # [N]
    return s.reliability_weight * reliability + (1 - s.reliability_weight) * disagreement


@torch.no_grad()
def logits_of(big: FoundationSegmenter, embeddings: Tensor, s: Settings) -> Tensor:
    """The foundation model's logits of the pool, [N, C, S, S]."""
    big.eval()
    batches = embeddings.split(s.distillation_batch)
    return torch.cat([big.decode(batch.float()) for batch in batches])


def select(scores: Tensor, s: Settings, random: Generator) -> Tensor:
    """The highest scores, ties to the lower index; indices ascending.

    To draw without replacement in proportion to exp(score) is to take the highest of the scores
    plus Gumbel noise.
    """
    keep = max(1, int(np.ceil(round(s.ratio * len(scores), 9))))
    ranked = scores.double()
    if s.rule == "softmax":
        uniform = torch.rand(len(scores), generator=random, dtype=torch.float64)
        ranked = ranked - torch.log(-torch.log(uniform))
    return torch.argsort(ranked, descending=True, stable=True)[:keep].sort().values


# Losses, all of logits; one number a sample ----------------------------------------------------


def cross_entropy(z: Tensor, m: Tensor) -> Tensor:
    """Mean over pixels, summed over structures."""
    return F.binary_cross_entropy_with_logits(z, m, reduction="none").mean(dim=(2, 3)).sum(dim=1)


def supervised_loss(z: Tensor, m: Tensor) -> Tensor:
    """Cross-entropy and soft Dice."""
    entropy, p = cross_entropy(z, m), z.sigmoid()
    overlap, total = (p * m).sum(dim=(2, 3)), p.sum(dim=(2, 3)) + m.sum(dim=(2, 3))
    return entropy + (1 - (2 * overlap + 1) / (total + 1)).sum(dim=1)


def both_divergences(z: Tensor, other: Tensor, s: Settings) -> Tensor:
    """KL(p||q) + KL(q||p) = (p - q)(logit p - logit q) for Bernoulli pixels, of held logits."""
    z, other = (logits.clamp(-s.logit_limit, s.logit_limit) for logits in (z, other))
    difference = (z - other) / s.temperature
    gap = (z / s.temperature).sigmoid() - (other / s.temperature).sigmoid()
    return (gap * difference).mean(dim=(2, 3)).sum(dim=1)


def distillation_loss(z: Tensor, other: Tensor, m: Tensor, s: Settings) -> Tensor:
    """w_s l(z, m) + w_KL T^2 (KL(p||q) + KL(q||p)), mean over the batch."""
    supervised = supervised_loss(z, m).mean()
    divergence = both_divergences(z, other, s).mean()
    return s.supervised_weight * supervised + s.kl_weight * s.temperature**2 * divergence


# Images ----------------------------------------------------------------------------------------


def images_of(samples: list[Sample]) -> Tensor:
    """[N, 3, S, S] in [0, 1]."""
    return channels_first([sample.image for sample in samples]) / 255


def masks_of(samples: list[Sample]) -> Tensor:
    """[N, C, S, S] of 0 and 1."""
    return channels_first([sample.mask for sample in samples])


def channels_first(arrays: list[Any]) -> Tensor:
    """[N, S, S, *] to float32 [N, *, S, S]."""
    return torch.tensor(np.stack(arrays)).permute(0, 3, 1, 2).float().contiguous()


def turn(x: Tensor, symmetry: int) -> Tensor:
    """Quarter turns, and a mirror image for the upper four of the eight symmetries."""
    x = torch.rot90(x, symmetry % 4, dims=(2, 3))
    return x.flip(3) if symmetry >= 4 else x


def turn_back(x: Tensor, symmetry: int) -> Tensor:
    """The inverse of turn."""
    x = x.flip(3) if symmetry >= 4 else x
    return torch.rot90(x, -(symmetry % 4), dims=(2, 3))


def vary_light(x: Tensor, s: Settings, random: Generator) -> Tensor:
    """Gamma, contrast, channel gain and brightness, drawn for each image in this order."""

    def draw(limit: float, channels: int = 1) -> Tensor:
        return limit * (2 * torch.rand(len(x), channels, 1, 1, generator=random) - 1)

    gamma, contrast, colour, brightness = s.light
    x = x.clamp(1e-4, 1) ** draw(gamma).exp()
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (1 + draw(contrast))
    x = x * (1 + draw(colour, channels=3)) + draw(brightness)
    return x.clamp(0, 1)


def copied(model: Segmenter) -> State:
    """What training changes."""
    return {name: value.detach().clone() for name, value in model.trainable_state().items()}


def adam(model: Segmenter, rate: float) -> torch.optim.Optimizer:
    """Adam over what is not frozen."""
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)


def step(optimizer: torch.optim.Optimizer, loss: Tensor, clip: float = 1e9) -> None:
    """One update, its gradient scaled down to norm ``clip``."""
    optimizer.zero_grad()
    loss.backward()
    parameters = optimizer.param_groups[0]["params"]
    norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
    for p in parameters:
        if p.grad is not None:
            p.grad *= (clip / (norm + 1e-6)).clamp(max=1)
    optimizer.step()


@torch.no_grad()
def seen_validation_dice(split: SplitFederation, model: Segmenter) -> float:
    """Mean over clients of the mean Dice over their validation images; 1 where both are empty."""
    model.eval()
    means = []
    for site in split.seen_sites:
        samples = list(split.samples(site, "validation"))
        predicted = model(images_of(samples)).sigmoid() >= 0.5
        truth = masks_of(samples) > 0
        overlap = (predicted & truth).sum(dim=(2, 3)).double()
        total = predicted.sum(dim=(2, 3)) + truth.sum(dim=(2, 3))
        dice = torch.where(total == 0, 1.0, 2 * overlap / total)  # [N, C]
        means.append(float(dice.mean()))
    return sum(means) / len(means)
