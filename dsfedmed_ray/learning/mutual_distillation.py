"""Mutual distillation: two models of different scale teach each other.

Each model's gradient needs only the *other* model's logits, as constants. So the two may live in
different processes and exchange logits, nothing else: a :class:`Learner` is one side of that
exchange.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from torch.nn.utils import clip_grad_norm_

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.augmentation import (
    Augmentation,
    draw_turn,
    turn,
    turn_back,
    vary_light,
)
from dsfedmed_ray.learning.losses import held, segmentation_loss, symmetric_kl
from dsfedmed_ray.learning.stopping_rule import check_patience, check_tolerance
from dsfedmed_ray.seeding import torch_generator


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How the two models train on the selected samples.

    Attributes:
        epochs: passes over the selected samples (authors: 20).
        batch_size: samples a step (authors: 4).
        temperature: ``T`` of both divergences, whose weight is scaled by ``T**2`` (authors: 1).
        logit_limit: both models' logits are held within ``+-logit_limit`` where they are compared
            with each other, in divergences and scores (paper and authors: none, which is ``inf``).
            The divergence grows with a logit however sure it is already.
        supervised_weight: weight of the loss against the mask (authors: 0.9).
        kl_weight: weight of both divergences (authors: 0.1); 0 trains the two side by side.
        mutual: whether the foundation model learns from the lightweight one too; False leaves it
            as it was adapted, a one-way distillation.
        foundation_every: epochs from one in which the foundation model learns to the next (paper:
            1). Between them the lightweight model, whose steps cost a small part, goes on towards
            the logits that it gave last. Without effect where ``mutual`` is False.
        validate_every: epochs between two candidates that the clients validate; the last epoch
            always is one.
        lightweight_learning_rate: Adam's, for the lightweight model.
        foundation_learning_rate: Adam's, for the foundation model (authors: 1e-4).
        positive_weight: weight of foreground pixels in the cross-entropy (authors: 2).
        warmup_epochs: epochs in which both learning rates are damped, by a factor that climbs to 1
            in equal steps (authors: 0). Adam's first steps are as large as the rate, whatever the
            gradient: at once they throw a trained model off.
        final_rate: what is left of both learning rates in the last epoch, falling linearly, in
            (0, 1] (authors: 1, constant).
        gradient_clip: largest norm of a step's gradient, each model's own (authors: none, which is
            ``inf``).
        augmentation: what is varied for the lightweight model; its logits are turned back before
            they are exchanged, so that both models always speak of the same pixels.
        patience: epochs without a better seen-site validation before the stage stops; None runs
            all epochs.
        tolerance: the result is the latest epoch whose seen-site validation Dice is at most this
            far below the best candidate's, the federated model's included, in [0, 1]; 0 takes the
            best, 1 the last. Where refinement follows, the last epoch is handed on.
        placement: where the lightweight model distils: ``server`` (paper), or ``clients``, each on
            its own generator's samples from served targets; then ``mutual`` must be False.
    """

    epochs: int = 20
    batch_size: int = 8
    temperature: float = 1.0
    logit_limit: float = math.inf
    supervised_weight: float = 0.9
    kl_weight: float = 0.1
    mutual: bool = True
    foundation_every: int = 1
    validate_every: int = 1
    lightweight_learning_rate: float = 1e-3
    foundation_learning_rate: float = 1e-4
    warmup_epochs: int = 0
    final_rate: float = 0.1
    positive_weight: float = 1.0
    gradient_clip: float = 1.0
    augmentation: Augmentation | None = None
    patience: int | None = None
    tolerance: float = 0.0
    placement: Literal["server", "clients"] = "server"

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "batch_size",
            "foundation_every",
            "validate_every",
            "temperature",
            "logit_limit",
            "lightweight_learning_rate",
            "foundation_learning_rate",
            "positive_weight",
            "gradient_clip",
        ):
            if not getattr(self, name) > 0:
                raise ConfigurationError(
                    f"method.distillation.{name} is {getattr(self, name)}; it must be positive"
                )
        if self.warmup_epochs < 0:
            raise ConfigurationError(
                f"method.distillation.warmup_epochs is {self.warmup_epochs}; at least 0 "
                "(no warm-up)"
            )
        if not 0 < self.final_rate <= 1:
            raise ConfigurationError(
                f"method.distillation.final_rate is {self.final_rate}; allowed: above 0 up to 1 "
                "(1 keeps the learning rates)"
            )
        check_patience("method.distillation.patience", self.patience)
        check_tolerance("method.distillation.tolerance", self.tolerance)
        for name in ("supervised_weight", "kl_weight"):
            if getattr(self, name) < 0:
                raise ConfigurationError(
                    f"method.distillation.{name} is {getattr(self, name)}; it cannot be negative"
                )
        if self.placement not in ("server", "clients"):
            raise ConfigurationError(
                f"method.distillation.placement is {self.placement!r}; allowed: server, clients"
            )
        if self.placement == "clients" and self.mutual:
            raise ConfigurationError(
                "method.distillation.placement=clients serves targets one way; "
                "set method.distillation.mutual=false too"
            )

    def foundation_learns(self, epoch: int) -> bool:
        """Whether the foundation model makes steps in an epoch, from 0."""
        return self.mutual and epoch % self.foundation_every == 0

    def validates(self, epoch: int) -> bool:
        """Whether the clients judge the lightweight model after an epoch, from 0."""
        return (epoch + 1) % self.validate_every == 0 or epoch + 1 == self.epochs

    def rate_factor(self, epoch: int) -> float:
        """What both learning rates are multiplied by: the warm-up, times the fall."""
        warm = min(1.0, (epoch + 1) / (self.warmup_epochs + 1))
        return warm * (1 - (1 - self.final_rate) * epoch / max(1, self.epochs - 1))


def distillation_loss(
    logits: Float[Tensor, "batch structures height width"],
    other_logits: Float[Tensor, "batch structures height width"],
    masks: Float[Tensor, "batch structures height width"],
    config: Distillation,
    counted: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """One model's loss: the mask, and both divergences to the other model.

    ``w_s l(z, m) + w_KL T**2 (KL(p||q) + KL(q||p))``, mean over the batch; the divergences are of
    logits held within ``+-logit_limit`` and have no gradient where this model's lie beyond it.

    Args:
        logits: this model's, with gradient.
        other_logits: the other model's, constants.
        masks: 0 or 1.
        config: weights, temperature and limit.
        counted: rows whose divergence counts (the release's rule); None counts all.
    """
    supervised = segmentation_loss(logits, masks, config.positive_weight).mean()
    own, other = (held(z, config.logit_limit) for z in (logits, other_logits.detach()))
    divergence = symmetric_kl(own, other, config.temperature)
    if counted is not None:
        rows = counted.to(divergence)
        divergence = divergence * rows / rows.sum().clamp(min=1.0) * len(rows)
    scale = config.kl_weight * config.temperature**2
    return config.supervised_weight * supervised + scale * divergence.mean()


class Learner(Protocol):
    """One of the two models. ``begin`` and ``finish`` alternate, once a batch each."""

    def start_epoch(self, epoch: int) -> None:
        """Sets the learning rate of an epoch, from 0."""
        ...

    def pool_logits(self) -> Float[Tensor, "pool structures height width"]:
        """Logits on the whole synthetic pool, without gradients."""
        ...

    def begin(
        self, indices: Int[Tensor, " batch"], *stream: int | str
    ) -> Float[Tensor, "batch structures height width"]:
        """Runs the model on a batch, keeps its graph, gives the logits on the CPU."""
        ...

    def finish(
        self,
        other_logits: Float[Tensor, "batch structures height width"],
        counted: Bool[Tensor, " batch"] | None,
    ) -> float:
        """One update from the kept graph and the other model's logits; gives the loss."""
        ...


class PoolLearner:
    """A :class:`Learner` over a model and a pool that are both at hand.

    Args:
        model: maps a batch of ``inputs`` to logits.
        inputs: the pool's images (``uint8 [pool, 3, size, size]``) or a foundation model's kept
            embeddings (floating point); anything that indexes by an integer tensor.
        masks: ``uint8 [pool, structures, size, size]`` of 0 and 1.
        learning_rate: Adam's, in the first epoch.
        config: losses, and how the rate falls.
        augmentation: for image inputs only.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        masks: Tensor,
        *,
        learning_rate: float,
        config: Distillation,
        augmentation: Augmentation | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self._learning_rate = learning_rate
        self._inputs = inputs
        self._masks = masks
        self._augmentation = augmentation
        self._device = device or torch.device("cpu")
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=learning_rate)
        self._kept: tuple[Tensor, Tensor] | None = None

    def start_epoch(self, epoch: int) -> None:
        """See :class:`Learner`."""
        rate = self._learning_rate * self.config.rate_factor(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def pool_logits(self) -> Tensor:
        """See :class:`Learner`."""
        batches = torch.arange(len(self._masks)).split(self.config.batch_size)
        return torch.cat([self.logits_of(indices) for indices in batches])

    def logits_of(self, indices: Tensor) -> Tensor:
        """Logits of one batch, without gradients or augmentation, on the CPU."""
        self.model.eval()
        with torch.no_grad():
            logits: Tensor = self.model(self._batch(indices))
        return logits.float().cpu()

    def begin(self, indices: Tensor, *stream: int | str) -> Tensor:
        """See :class:`Learner`; ``stream`` names the random stream of the augmentation."""
        self.model.train()
        batch = self._batch(indices)
        if self._augmentation is None:
            logits = self.model(batch)
        else:
            generator = torch_generator(*stream)
            logits = self._on_varied(batch, self._augmentation, generator)
        self._kept = (logits, self._masks[indices].to(self._device).float())
        return logits.detach().float().cpu()

    def finish(self, other_logits: Tensor, counted: Tensor | None) -> float:
        """See :class:`Learner`.

        Raises:
            RuntimeError: no batch was begun.
        """
        if self._kept is None:
            raise RuntimeError("finish() without begin()")
        logits, masks = self._kept
        self._kept = None
        other = other_logits.to(self._device)
        loss = distillation_loss(logits, other, masks, self.config, counted)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(self.optimizer.param_groups[0]["params"], self.config.gradient_clip)
        self.optimizer.step()
        return float(loss.detach())

    def _batch(self, indices: Tensor) -> Tensor:
        batch = torch.as_tensor(self._inputs[indices]).to(self._device)
        return batch.float() / 255.0 if batch.dtype == torch.uint8 else batch.float()

    def _on_varied(self, images: Tensor, config: Augmentation, generator: Generator) -> Tensor:
        symmetry = draw_turn(generator) if config.dihedral else 0
        varied = vary_light(turn(images, symmetry), config, generator)
        return turn_back(self.model(varied), symmetry)
