"""A generator: a frozen diffusion backbone steered by one client's ControlNet.

``y = F(x; Phi) + Z(F(x + Z(c; z1); Phi_c); z2)`` (paper, section on generation): the backbone
``Phi`` is public and frozen, the ControlNet ``Phi_c`` is what a client tunes and uploads once. The
same class serves the shipped tiny backbone and Stable Diffusion 1.5.
"""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator as RandomGenerator
from torch import Tensor, nn

from dsfedmed_ray.errors import CheckpointError
from dsfedmed_ray.models.controlnet_adapter import attach_adapter
from dsfedmed_ray.models.generator_settings import GeneratorSettings, check_parts
from dsfedmed_ray.models.image_space import Condition, ImageSpace
from dsfedmed_ray.models.layout import Layout
from dsfedmed_ray.models.precision import arithmetic
from dsfedmed_ray.models.segmenter import State, check_same_layout
from dsfedmed_ray.seeding import torch_generator


class Generator:
    """Backbone, scheduler and one resident ControlNet that clients' uploads are loaded into.

    Args:
        settings: of tuning and sampling.
        space: between images and latents.
        unet: the frozen backbone.
        controlnet: where every client's tuning starts.
        scheduler: diffusers' DDIM scheduler.
        device: where the networks are, such as ``"cpu"`` or ``"cuda:0"``.
    """

    def __init__(
        self,
        *,
        settings: GeneratorSettings,
        space: ImageSpace,
        unet: nn.Module,
        controlnet: nn.Module,
        scheduler: Any,
        device: str = "cpu",
    ) -> None:
        self.settings = settings
        self.space = space
        self.device = torch.device(device)
        self.unet = unet.to(self.device).eval().requires_grad_(False)
        self.controlnet = attach_adapter(controlnet, settings).to(self.device)
        self.scheduler = scheduler
        self._start = {name: value.clone() for name, value in self.controlnet_state().items()}

    def controlnet_state(self) -> State:
        """The tuned part of the resident ControlNet: what a client uploads."""
        named = self.controlnet.named_parameters()
        return {name: weight.detach() for name, weight in named if weight.requires_grad}

    def load_controlnet(self, state: State) -> None:
        """Makes an uploaded ControlNet the resident one.

        Raises:
            CheckpointError: the upload is of another architecture or adapter.
        """
        own = self.controlnet_state()
        check_same_layout(own, state, what=f"the {self.settings.adapter} ControlNet")
        for name, value in own.items():
            value.copy_(state[name])

    def reset_controlnet(self) -> None:
        """Back to the public starting point."""
        self.load_controlnet(self._start)

    def tuned_parameters(self) -> list[nn.Parameter]:
        """The parameters of :meth:`controlnet_state`, for an optimiser."""
        return [weight for weight in self.controlnet.parameters() if weight.requires_grad]

    def predict(
        self,
        noisy: Float[Tensor, "batch latents rows columns"],
        steps: Int[Tensor, " batch"],
        condition: Condition,
    ) -> Float[Tensor, "batch latents rows columns"]:
        """What the scheduler's ``prediction_type`` names: velocity or noise."""
        shared = {
            "encoder_hidden_states": condition.tokens,
            "class_labels": condition.class_labels,
            "return_dict": False,
        }
        with self.arithmetic():
            down, middle = self.controlnet(
                noisy, steps, controlnet_cond=condition.control, **shared
            )
            (prediction,) = self.unet(
                noisy,
                steps,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
                **shared,
            )
        return prediction.float()

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Autocast as ``settings.precision`` says."""
        return arithmetic(self.settings.precision, self.device)

    @torch.no_grad()
    def sample(
        self,
        masks: Float[Tensor, "batch structures height width"],
        style: Float[Tensor, "batch style"],
        seeds: Sequence[int],
        layout: Layout | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Draws one image in [0, 1] for each mask.

        Args:
            masks: 0 and 1.
            style: of each image.
            seeds: of each image, which depends on no other.
            layout: what the client's images share; None without.
        """
        masks, style = masks.to(self.device), style.to(self.device)
        layout = None if layout is None else layout.to(self.device)
        condition = self.space.condition(masks, style, layout)
        height, width = masks.shape[2:]
        probe = self.space.encode(masks.new_zeros(1, 3, height, width), first_of(condition))
        latents = self._noise("latents", seeds, tuple(probe.shape[1:]))
        grain = self._noise("grain", seeds, (3, height, width)) * self.settings.grain
        latents = latents * float(self.scheduler.init_noise_sigma)
        scheduler = copy.deepcopy(self.scheduler)
        scheduler.set_timesteps(self.settings.num_inference_steps, device=self.device)
        expected = None
        for step in scheduler.timesteps:
            steps = step.expand(len(seeds))
            prediction = self.predict(scheduler.scale_model_input(latents, step), steps, condition)
            if layout is not None:
                signal = scheduler.alphas_cumprod[step.cpu()].to(latents)
                spectrum = layout.spectrum * self.settings.residual_energy
                prediction = limit_energy(prediction, latents, signal, spectrum)
                if expected is None:
                    expected = signal.sqrt() * latents - (1 - signal).sqrt() * prediction
            latents = scheduler.step(prediction, step, latents).prev_sample
        if expected is not None:
            latents = expected + self.settings.variation * (latents - expected)
        return self.space.decode(latents, condition, grain)

    def _noise(self, what: str, seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        drawn = [torch.randn(shape, generator=torch_generator(what, int(seed))) for seed in seeds]
        return torch.stack(drawn).to(self.device)


def limit_energy(
    velocity: Float[Tensor, "batch latents rows columns"],
    noisy: Float[Tensor, "batch latents rows columns"],
    signal: Float[Tensor, ""],
    spectrum: Float[Tensor, " latents"],
) -> Float[Tensor, "batch latents rows columns"]:
    """Scales down channels whose predicted image has more energy than the client's images.

    With ``x = a z + s e`` and ``v = a e - s z`` the predicted image is ``z = a x - s v``; when z
    is scaled, v follows from ``e = (x - a z) / s``.

    Args:
        velocity: predicted.
        noisy: x.
        signal: a squared; s squared is the rest to 1.
        spectrum: root mean square of each channel.
    """
    a, s = signal.sqrt(), (1 - signal).sqrt().clamp(min=1e-4)
    image = a * noisy - s * velocity
    drawn = image.square().mean(dim=(2, 3), keepdim=True).sqrt()
    image = image * (spectrum.view(1, -1, 1, 1) / drawn.clamp(min=1e-6)).clamp(max=1)
    return a * (noisy - a * image) / s - s * image


def stratified_steps(count: int, num_steps: int, random: RandomGenerator) -> Int[Tensor, " count"]:
    """One random step in each of ``count`` equal parts of ``0 ... num_steps - 1``, ascending."""
    strata = (torch.arange(count) + torch.rand(count, generator=random)) / count
    # In float32 the last part can round up to its end.
    return (strata * num_steps).long().clamp(max=num_steps - 1)


def first_of(condition: Condition) -> Condition:
    """The condition of the first sample alone."""
    painting = condition.painting
    return Condition(
        control=condition.control[:1],
        tokens=condition.tokens[:1],
        class_labels=None if condition.class_labels is None else condition.class_labels[:1],
        painting=None if painting is None else painting.first(),
        fine=None if condition.fine is None else condition.fine[:1],
        chroma=None if condition.chroma is None else condition.chroma[:1],
    )


EMBEDDED_PARTS = ("codec", "unet", "controlnet", "scheduler")
EMBEDDED_REMEDY = (
    f"set generator.folder to a folder with {', '.join(EMBEDDED_PARTS)}, "
    "or to null for the shipped one"
)


@dataclass(frozen=True, kw_only=True)
class EmbeddedGeneratorConfig(GeneratorSettings):
    """The shipped tiny backbone; image sides must be multiples of 16.

    Attributes:
        folder: a backbone folder in diffusers' format; None is the one inside the package.
    """

    has_painting: ClassVar[bool] = True

    folder: str | None = None

    def check(self) -> None:
        """See :class:`~dsfedmed_ray.models.generator_settings.GeneratorSettings`."""
        check_parts(self.backbone, EMBEDDED_PARTS, what="generator.folder", remedy=EMBEDDED_REMEDY)

    @property
    def backbone(self) -> Path:
        """Where the backbone is."""
        return Path(self.folder) if self.folder is not None else shipped_backbone()

    def build(self, *, device: str = "cpu") -> Generator:
        """Loads the backbone.

        Raises:
            CheckpointError: the folder has no such backbone.
        """
        from dsfedmed_ray.models.image_space import PaintedSpace
        from dsfedmed_ray.models.tiny_diffusion import load_tiny_diffusion

        try:
            parts = load_tiny_diffusion(self.backbone)
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"cannot load the backbone in {self.backbone}: {str(error).splitlines()[0]}; "
                f"{EMBEDDED_REMEDY}"
            ) from error
        return Generator(
            settings=self,
            space=PaintedSpace(parts.codec.to(device)),
            unet=parts.unet,
            controlnet=parts.controlnet,
            scheduler=parts.scheduler,
            device=device,
        )


def shipped_backbone() -> Path:
    """The backbone folder inside the installed package."""
    return Path(str(resources.files("dsfedmed_ray.models"))) / "assets" / "tiny_diffusion"
