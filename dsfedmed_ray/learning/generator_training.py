"""Stage 1: a client tunes its ControlNet on private pairs; the backbone stays as it is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.generator_upload import GeneratorUpload
from dsfedmed_ray.learning.mask_sources import perturb_masks
from dsfedmed_ray.learning.rate_schedule import rate_factor
from dsfedmed_ray.learning.tuning_batches import TuningBatch, TuningBatches
from dsfedmed_ray.models.generator import Generator, stratified_steps
from dsfedmed_ray.models.layout import (
    COARSE_GRID,
    ENOUGH_FOR_DETAIL,
    FINE_GRID,
    SMALLEST_COUNT,
    Layout,
)
from dsfedmed_ray.records import Sample
from dsfedmed_ray.seeding import derive_seed, torch_generator

Progress = Callable[[int, int, float], None]


def tune_generator(
    generator: Generator,
    samples: Sequence[Sample],
    *,
    seed: int,
    progress: Progress | None = None,
) -> GeneratorUpload:
    """Tunes a ControlNet from the public start for ``settings.steps`` steps.

    Args:
        generator: its resident ControlNet is overwritten.
        samples: the client's private training pairs.
        seed: of batches, noise and mask perturbation.
        progress: called after each step with step, steps and loss.

    Raises:
        ConfigurationError: there is no pair to tune on, or its masks cannot be drawn procedurally.
    """
    if not len(samples):
        raise ConfigurationError("a client without pairs cannot tune a generator; leave it out")
    images, masks = stack_pairs(samples)
    generator.settings.check_structures(masks.shape[1])
    generator.reset_controlnet()
    tuning = _Tuning(generator, images.to(generator.device), masks.to(generator.device), seed)
    steps = generator.settings.steps
    losses = []
    for step in range(steps):
        losses.append(tuning.run_step(step))
        if progress is not None:
            progress(step + 1, steps, losses[-1])
    tuning.use_average()
    final_loss = float(np.mean(losses[-max(1, steps // 10) :]))
    return _upload(generator, samples, seed, final_loss, tuning.layout)


def stack_pairs(
    samples: Sequence[Sample],
) -> tuple[Float[Tensor, "count 3 height width"], Float[Tensor, "count structures height width"]]:
    """Images in [0, 1] and masks of 0 and 1, channels first."""
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    masks = torch.from_numpy(np.stack([sample.mask for sample in samples]))
    return images.permute(0, 3, 1, 2).float() / 255, masks.permute(0, 3, 1, 2).float()


class _Tuning:
    """Optimiser, average and random streams of one client's tuning."""

    def __init__(self, generator: Generator, images: Tensor, masks: Tensor, seed: int) -> None:
        self.generator = generator
        self.settings = generator.settings
        self.seed = seed
        self.layout = shared_layout(generator, images, masks)
        self.batches = TuningBatches(generator, images, masks, self.layout)
        self.weights = generator.tuned_parameters()
        self.average = [weight.detach().clone() for weight in self.weights]
        self.optimiser = torch.optim.AdamW(
            self.weights,
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
        )
        half = self.settings.precision == "fp16"
        self.scaler = torch.amp.GradScaler(generator.device.type, enabled=half)

    def run_step(self, step: int) -> float:
        """One optimiser step; gives the loss."""
        random = torch_generator(self.seed, "tune_generator", step)
        loss = self._loss(self.batches.draw(random), random)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * rate_factor(step, self.settings.steps)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        decay = min(self.settings.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list[Tensor](self.weights), 1 - decay)
        return float(loss.detach())

    def use_average(self) -> None:
        """Puts the averaged weights in place of the last ones."""
        with torch.no_grad():
            torch._foreach_copy_(list[Tensor](self.weights), self.average)

    def _loss(self, batch: TuningBatch, random: torch.Generator) -> Tensor:
        scheduler, latents, masks = self.generator.scheduler, batch.latents, batch.masks
        count = latents.shape[0]
        noise = torch.randn(latents.shape, generator=random).to(latents.device)
        steps = stratified_steps(count, scheduler.config.num_train_timesteps, random)
        steps = steps.to(latents.device)
        noisy = scheduler.add_noise(latents, noise, steps)
        predicted = self.generator.predict(noisy, steps, batch.condition)
        error = (predicted - target_of(scheduler, latents, noise, steps)).square()
        weight = time_weight(scheduler, steps, self.settings.min_snr_gamma).view(-1, 1, 1, 1)
        if self.settings.foreground_weight > 0:
            touched = functional.adaptive_max_pool2d(masks.amax(1, True), latents.shape[2:])
            weight = weight * (1 + self.settings.foreground_weight * touched)
            weight = weight / (1 + self.settings.foreground_weight * touched.mean())
        return (error * weight).mean()


@torch.no_grad()
def shared_layout(
    generator: Generator,
    images: Float[Tensor, "count 3 height width"],
    masks: Float[Tensor, "count structures height width"],
) -> Layout | None:
    """The layout of the pairs as tuning sees them, mirrored or turned; None of too few pairs."""
    if not generator.settings.layout or len(images) < SMALLEST_COUNT:
        return None
    grid = FINE_GRID if len(images) >= ENOUGH_FOR_DETAIL else COARSE_GRID
    kind = generator.settings.augmentation
    if kind == "dihedral":
        images = torch.cat([torch.rot90(images, turns, (2, 3)) for turns in range(4)])
        masks = torch.cat([torch.rot90(masks, turns, (2, 3)) for turns in range(4)])
    if kind != "none":
        images, masks = torch.cat([images, images.flip(3)]), torch.cat([masks, masks.flip(3)])
    return generator.space.layout(images, masks, grid)


def target_of(scheduler: Any, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
    """What the network is to predict, by the scheduler's ``prediction_type``.

    Raises:
        ConfigurationError: the type is neither velocity nor noise.
    """
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, steps)
    if kind == "epsilon":
        return noise
    raise ConfigurationError(
        f"prediction_type {kind!r} of the backbone's scheduler is unknown; "
        "use a backbone with v_prediction or epsilon"
    )


def time_weight(
    scheduler: Any, steps: Int[Tensor, " batch"], gamma: float | None
) -> Float[Tensor, " batch"]:
    """Min-SNR weights (Hang et al. 2023): the loss on x0 capped at gamma, for either target."""
    if gamma is None:
        return torch.ones(steps.shape[0], device=steps.device)
    signal = scheduler.alphas_cumprod.to(steps.device)[steps]
    ratio = signal / (1 - signal).clamp(min=1e-8)
    scale = ratio + 1 if scheduler.config.prediction_type == "v_prediction" else ratio
    return ratio.clamp(max=gamma) / scale.clamp(min=1e-8)


def _upload(
    generator: Generator,
    samples: Sequence[Sample],
    seed: int,
    final_loss: float,
    layout: Layout | None,
) -> GeneratorUpload:
    settings = generator.settings
    images, masks = stack_pairs(samples)
    with torch.no_grad():
        style = generator.space.measure(images.to(generator.device), masks.to(generator.device))
    sent = np.stack([sample.mask for sample in samples])
    if settings.masks == "procedural":
        sent = sent[:0]
    elif settings.masks == "perturbed":
        repeated = np.concatenate([sent] * settings.num_masks_per_pair)
        sent, moves = perturb_masks(
            repeated, strength=settings.perturbation, seed=derive_seed(seed, "sent_masks")
        )
        style = style.repeat(settings.num_masks_per_pair, 1)
        style = generator.space.moved(style, moves.to(style.device))
    state = generator.controlnet_state()
    return GeneratorUpload(
        controlnet={
            name: value.cpu().numpy().astype(settings.upload_dtype) for name, value in state.items()
        },
        masks=sent,
        style=style.float().cpu().numpy(),
        final_loss=final_loss,
        layout={
            name: part.float().cpu().numpy()
            for name, part in ({} if layout is None else layout.parts()).items()
        },
    )
