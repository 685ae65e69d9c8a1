"""Stage 2: the server draws synthetic images from a client's upload, in fixed jobs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dsfedmed_ray.data.intensity import stretch
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.learning.generator_upload import GeneratorUpload
from dsfedmed_ray.learning.mask_sources import procedural_masks
from dsfedmed_ray.learning.style_mixing import diversify_style
from dsfedmed_ray.models.generator import Generator
from dsfedmed_ray.models.generator_settings import GeneratorSettings
from dsfedmed_ray.models.layout import Layout
from dsfedmed_ray.models.painting import AREA, FIRST_STRUCTURE, NUM_FEATURES
from dsfedmed_ray.models.pose import POSE_SIZE
from dsfedmed_ray.records import MaskArray, MaskOrigin, SyntheticSample
from dsfedmed_ray.seeding import derive_seed, numpy_generator, torch_generator

TYPICAL_SHAPE = (0.1, 0.02)
"""Area and perimeter of drawn masks where no styles say them, as fractions of the pixels."""


@dataclass(frozen=True, kw_only=True)
class GenerationJob:
    """A fixed batch of synthetic images of one client.

    Attributes:
        client: name of the client.
        mask_origin: where the masks came from.
        masks: ``uint8 [batch, height, width, structures]``.
        style: ``float32 [batch, size]``.
        shifted: whether each image is drawn in a style that the client does not have.
        seeds: one an image; the image depends on nothing else but mask, style and ControlNet.
        sample_ids: unique in the synthetic set.
    """

    client: str
    mask_origin: MaskOrigin
    masks: MaskArray
    style: NDArray[np.float32]
    shifted: tuple[bool, ...]
    seeds: tuple[int, ...]
    sample_ids: tuple[str, ...]


def plan_jobs(
    settings: GeneratorSettings,
    upload: GeneratorUpload,
    *,
    client: str,
    num_samples: int,
    seed: int,
    other_styles: Sequence[NDArray[np.float32]] = (),
) -> list[GenerationJob]:
    """Decides every mask, style and seed of a client's share of the synthetic set.

    Args:
        settings: of the generator: mask origin, images a job and style diversity.
        upload: what the client sent.
        client: its name.
        num_samples: images to draw; masks are used in turn, in a random order.
        seed: of the choice and of the images.
        other_styles: styles that other clients uploaded, ``[pairs, size]`` each.

    Raises:
        ConfigurationError: ``num_samples`` is below 1, or masks were expected and none came.
    """
    if num_samples < 1:
        raise ConfigurationError(f"num_samples={num_samples} draws nothing; give at least 1")
    masks, styles = _choose(upload, client, num_samples, settings.masks, seed)
    shifted = np.zeros(num_samples, np.bool_)
    if settings.style_diversity > 0 and styles.shape[1] > 0:
        random = numpy_generator(seed, "style_diversity", client)
        others = [other for other in other_styles if other.shape[1] == styles.shape[1]]
        share = settings.style_diversity
        styles, shifted = diversify_style(styles, others, share=share, random=random)
    jobs = []
    for start in range(0, num_samples, settings.images_per_job):
        stop = min(start + settings.images_per_job, num_samples)
        jobs.append(
            GenerationJob(
                client=client,
                mask_origin=settings.masks,
                masks=masks[start:stop],
                style=styles[start:stop],
                shifted=tuple(shifted[start:stop].tolist()),
                seeds=tuple(
                    derive_seed(seed, "synthetic", client, index) for index in range(start, stop)
                ),
                sample_ids=tuple(f"{client}-{index:05d}" for index in range(start, stop)),
            )
        )
    return jobs


def _choose(
    upload: GeneratorUpload, client: str, num_samples: int, origin: MaskOrigin, seed: int
) -> tuple[MaskArray, NDArray[np.float32]]:
    """Masks and styles of all images, every mask about equally often."""
    random = numpy_generator(seed, "choose_masks", client)
    pairs = len(upload.style)
    if origin == "procedural":
        rounds = [random.permutation(pairs) for _ in range(-(-num_samples // pairs))]
        styles = upload.style[np.concatenate(rounds)[:num_samples]]
        _, height, width, _ = upload.masks.shape
        shapes = np.tile(np.array(TYPICAL_SHAPE, np.float32), (num_samples, 1))
        if styles.shape[1]:
            regions = styles[:, :-POSE_SIZE].reshape(num_samples, -1, NUM_FEATURES)
            shapes = regions[:, FIRST_STRUCTURE, AREA : AREA + 2]
        drawn_seed = derive_seed(seed, "procedural_masks", client)
        drawn = procedural_masks(shapes, height=height, width=width, seed=drawn_seed)
        return drawn, styles
    if not len(upload.masks):
        raise ConfigurationError(
            f"client {client!r} sent no masks; set generator.masks=procedural or tune again"
        )
    count = len(upload.masks)
    rounds = [random.permutation(count) for _ in range(-(-num_samples // count))]
    order = np.concatenate(rounds)[:num_samples]
    return upload.masks[order], upload.style[order % pairs]


def run_job(
    generator: Generator, upload: GeneratorUpload, job: GenerationJob
) -> list[SyntheticSample]:
    """Draws a job's images; the same job gives the same images in any order of jobs."""
    state = {name: torch.from_numpy(value) for name, value in upload.controlnet.items()}
    generator.load_controlnet(state)
    masks = torch.from_numpy(np.ascontiguousarray(job.masks)).permute(0, 3, 1, 2).float()
    layout = None
    if upload.layout:
        layout = Layout(**{name: torch.from_numpy(part) for name, part in upload.layout.items()})
    images = generator.sample(masks, torch.from_numpy(job.style), job.seeds, layout)
    return _samples(job, images)


def paint_job(generator: Generator, job: GenerationJob) -> list[SyntheticSample]:
    """The painting floor: flat regions and white noise of their deviations, no diffusion.

    Raises:
        ConfigurationError: the generator has no painting (Stable Diffusion).
    """
    masks = torch.from_numpy(np.ascontiguousarray(job.masks)).permute(0, 3, 1, 2).float()
    condition = generator.space.condition(
        masks.to(generator.device), torch.from_numpy(job.style).to(generator.device)
    )
    painting = condition.painting
    if painting is None:
        raise ConfigurationError("the painting floor needs the embedded generator")
    shape = tuple(masks.shape[2:])
    noise = torch.stack(
        [torch.randn((1, *shape), generator=torch_generator("floor", seed)) for seed in job.seeds]
    )
    images = painting.colour + painting.deviation * noise.to(generator.device)
    return _samples(job, images.clamp(0, 1))


def _samples(job: GenerationJob, images: torch.Tensor) -> list[SyntheticSample]:
    # As private images are stretched when they are read, so that both fill the same range.
    pixels = [stretch(image) for image in images.permute(0, 2, 3, 1).float().cpu().numpy()]
    return [
        SyntheticSample(
            sample_id=job.sample_ids[index],
            image=pixels[index],
            mask=job.masks[index],
            client=job.client,
            mask_origin=job.mask_origin,
            style_origin="shifted" if job.shifted[index] else "client",
            seed=job.seeds[index],
        )
        for index in range(len(job.seeds))
    ]
