"""Trains the shipped backbone on procedurally drawn public images, from a seed.

``python -m dsfedmed_ray.models.backbone_training --out DIR --minutes 75 [--resume]`` writes
``DIR/checkpoint.pt`` every few minutes and ``DIR/backbone``, the folder that the package ships.
No client's image is read here.
"""

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dsfedmed_ray.errors import CheckpointError
from dsfedmed_ray.models.generator import stratified_steps
from dsfedmed_ray.models.image_space import Condition, PaintedSpace
from dsfedmed_ray.models.procedural_images import draw_public_pair
from dsfedmed_ray.models.public_pool import PublicPool
from dsfedmed_ray.models.tiny_diffusion import BLOCK_CHANNELS, TinyDiffusion, new_tiny_diffusion
from dsfedmed_ray.run_directory import write_atomically, write_json
from dsfedmed_ray.seeding import derive_seed, torch_generator

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BackboneRecipe:
    """Everything that decides the weights, but for the time that training was given.

    Attributes:
        seed: of every random stream.
        image_size: side of the drawn images, pixels.
        codec_images: drawn images that fix the codec.
        block_channels: width of the two levels of the networks.
        pool_size: drawn images kept in memory.
        redrawn_per_step: images of the pool that are replaced at each step.
        batch_size: images a step.
        learning_rate: peak; warmed up, then lowered linearly over the time given.
        warmup_steps: steps to the peak.
        ema_decay: of the weights that are shipped.
        style_dropout: share of samples whose tokens are blanked.
        control_dropout: share of samples without the ControlNet.
        bf16: bfloat16 autocast.
    """

    seed: int = 0
    image_size: int = 128
    codec_images: int = 600
    block_channels: tuple[int, int] = BLOCK_CHANNELS
    pool_size: int = 4096
    redrawn_per_step: int = 2
    batch_size: int = 32
    learning_rate: float = 1.2e-3
    warmup_steps: int = 100
    ema_decay: float = 0.999
    style_dropout: float = 0.2
    control_dropout: float = 0.1
    bf16: bool = True

    def pool(self, step: int) -> PublicPool:
        """The public images as they are at a step."""
        return PublicPool(
            seed=self.seed,
            image_size=self.image_size,
            size=self.pool_size,
            redrawn_per_step=self.redrawn_per_step,
            step=step,
        )


class BackboneTraining:
    """Trains U-Net and public ControlNet jointly; one step is one call of :meth:`run_step`."""

    def __init__(self, recipe: BackboneRecipe) -> None:
        self.recipe = recipe
        self.parts = self._untrained()
        self.space = PaintedSpace(self.parts.codec)
        self._fit_codec()
        self.average = self._untrained()
        self.average.codec.load_state_dict(self.parts.codec.state_dict())
        self.weights = [*self.parts.unet.parameters(), *self.parts.controlnet.parameters()]
        self.averaged = [*self.average.unet.parameters(), *self.average.controlnet.parameters()]
        self.optimiser = torch.optim.AdamW(self.weights, lr=recipe.learning_rate, weight_decay=0.01)
        self.step = 0
        self.seconds = 0.0
        self.smoothed_loss = 1.0  # a velocity that is 0 everywhere has this loss

    def _untrained(self) -> TinyDiffusion:
        return new_tiny_diffusion(self.recipe.seed, self.recipe.block_channels)

    def _fit_codec(self) -> None:
        size = self.recipe.image_size
        pairs = [
            draw_public_pair(derive_seed(self.recipe.seed, "codec", index), size=size)
            for index in range(self.recipe.codec_images)
        ]
        images = torch.from_numpy(np.stack([pair[0] for pair in pairs])).permute(0, 3, 1, 2) / 255
        masks = torch.from_numpy(np.stack([pair[1] for pair in pairs])).permute(0, 3, 1, 2).float()
        condition = self.space.condition(masks, self.space.measure(images, masks))
        if condition.painting is None:
            raise CheckpointError("the painted space made no painting")
        painting = condition.painting
        kept = self.parts.codec.fit((images - painting.colour) / painting.deviation)
        log.info("codec keeps %.3f of the residual's energy", kept)

    def run_step(self, pool: PublicPool, progress: float) -> float:
        """One optimiser step.

        Args:
            pool: the public images.
            progress: fraction of the time given that has passed, for the learning rate.
        """
        random = torch_generator(self.recipe.seed, "backbone_step", self.step)
        images, masks = pool.batch(self.recipe.batch_size, random)
        with torch.no_grad():
            condition = self.space.condition(masks, self.space.measure(images, masks))
            latents = self.space.encode(images, condition)
        loss = self._loss(latents, condition, random)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        warm = min(1.0, (self.step + 1) / self.recipe.warmup_steps)
        cool = max(0.03, min(1.0, (1 - progress) / 0.6))
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * warm * cool
        self.optimiser.step()
        self._update_average()
        self.step += 1
        pool.advance()
        value = float(loss.detach())
        self.smoothed_loss = 0.99 * self.smoothed_loss + 0.01 * value
        return value

    def _loss(self, latents: Tensor, condition: Condition, random: torch.Generator) -> Tensor:
        count = latents.shape[0]
        scheduler = self.parts.scheduler
        noise = torch.randn(latents.shape, generator=random)
        steps = stratified_steps(count, scheduler.config.num_train_timesteps, random)
        noisy = scheduler.add_noise(latents, noise, steps)
        target = scheduler.get_velocity(latents, noise, steps)
        styled = (torch.rand(count, generator=random) >= self.recipe.style_dropout).float()
        steered = (torch.rand(count, generator=random) >= self.recipe.control_dropout).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16):
            velocity = steered_velocity(self.parts, noisy, steps, condition, styled, steered)
        return functional.mse_loss(velocity.float(), target)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.averaged, self.weights, 1 - decay)

    def save(self, folder: Path) -> None:
        """Writes the checkpoint and the backbone folder."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "smoothed_loss": self.smoothed_loss,
            "codec": self.parts.codec.state_dict(),
            "weights": [weight.detach() for weight in self.weights],
            "averaged": [weight.detach() for weight in self.averaged],
            "optimiser": self.optimiser.state_dict(),
        }
        write_atomically(folder / "checkpoint.pt", lambda path: torch.save(state, path))
        copy = self._untrained()
        copy.codec.load_state_dict(self.average.codec.state_dict())
        copy.unet.load_state_dict(self.average.unet.state_dict())
        copy.controlnet.load_state_dict(self.average.controlnet.state_dict())
        copy.save(folder / "backbone")
        record = {"step": self.step, "seconds": self.seconds, "loss": self.smoothed_loss}
        write_json(folder / "progress.json", record)

    def load(self, folder: Path) -> None:
        """Continues from :meth:`save`.

        Raises:
            CheckpointError: there is no checkpoint.
        """
        path = folder / "checkpoint.pt"
        if not path.exists():
            raise CheckpointError(f"no checkpoint {path}; start without --resume")
        state = torch.load(path, weights_only=True)
        for parts in (self.parts, self.average):
            parts.codec.load_state_dict(state["codec"])
        with torch.no_grad():
            for own, saved in zip(self.weights, state["weights"], strict=True):
                own.copy_(saved)
            for own, saved in zip(self.averaged, state["averaged"], strict=True):
                own.copy_(saved)
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.smoothed_loss = state["smoothed_loss"]


def steered_velocity(
    parts: TinyDiffusion,
    noisy: Float[Tensor, "batch latents rows columns"],
    steps: Tensor,
    condition: Condition,
    styled: Float[Tensor, " batch"],
    steered: Float[Tensor, " batch"],
) -> Tensor:
    """The U-Net's velocity with the ControlNet's residuals, either blanked for some samples.

    Args:
        parts: the networks.
        noisy: noisy latents.
        steps: time of each sample, 0-999.
        condition: of the batch.
        styled: 1 where the style is shown, 0 where it is blank.
        steered: 1 where the ControlNet counts.
    """
    tokens = condition.tokens * styled.view(-1, 1, 1)
    labels = condition.class_labels
    if labels is not None:
        labels = labels * styled.view(-1, 1)
    down, middle = parts.controlnet(
        noisy, steps, tokens, condition.control, class_labels=labels, return_dict=False
    )
    gate = steered.view(-1, 1, 1, 1)
    return parts.unet(
        noisy,
        steps,
        tokens,
        class_labels=labels,
        down_block_additional_residuals=[branch * gate for branch in down],
        mid_block_additional_residual=middle * gate,
    ).sample


def train(out: Path, *, minutes: float, resume: bool, recipe: BackboneRecipe) -> BackboneTraining:
    """Trains for a time, saving every four minutes and at the end.

    Args:
        out: folder of checkpoint and backbone, outside the repository.
        minutes: training time in all, earlier parts of a resumed run included.
        resume: continue the checkpoint in ``out``.
        recipe: settings; a resumed run must be given the same.
    """
    training = BackboneTraining(recipe)
    if resume:
        training.load(out)
    pool = recipe.pool(training.step)
    limit = minutes * 60
    last_save = training.seconds
    while training.seconds < limit:
        started = time.perf_counter()
        training.run_step(pool, training.seconds / limit)
        training.seconds += time.perf_counter() - started
        if training.step % 50 == 0:
            minutes_so_far = training.seconds / 60
            loss = training.smoothed_loss
            log.info("step %d  loss %.4f  %.1f min", training.step, loss, minutes_so_far)
        if training.seconds - last_save > 240:
            training.save(out)
            last_save = training.seconds
    training.save(out)
    return training


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--minutes", type=float, default=75.0, help="training time in all")
    parser.add_argument("--resume", action="store_true", help="continue the checkpoint in --out")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = BackboneRecipe(seed=given.seed)
    train(given.out, minutes=given.minutes, resume=given.resume, recipe=recipe)


if __name__ == "__main__":
    main()
