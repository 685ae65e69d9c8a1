"""Jobs are fixed: the same plan gives the same images, whatever runs beside them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from dsfedmed_ray.errors import CheckpointError, ConfigurationError
from dsfedmed_ray.learning.generator_training import tune_generator
from dsfedmed_ray.learning.generator_upload import GeneratorUpload
from dsfedmed_ray.learning.image_generation import paint_job, plan_jobs, run_job
from dsfedmed_ray.models.generator import EmbeddedGeneratorConfig, Generator
from dsfedmed_ray.records import Sample

Make = Callable[..., EmbeddedGeneratorConfig]


@pytest.fixture
def generator(toy_config: Make) -> Generator:
    return toy_config().build()


@pytest.fixture
def upload(generator: Generator, pairs: Sequence[Sample]) -> GeneratorUpload:
    return tune_generator(generator, pairs, seed=0)


def test_plan_covers_every_mask(generator: Generator, upload: GeneratorUpload) -> None:
    """20 images of 10 masks: each mask twice, in jobs of 3 and a last one of 2."""
    jobs = plan_jobs(generator.settings, upload, client="a", num_samples=20, seed=0)
    assert [len(job.seeds) for job in jobs] == [3, 3, 3, 3, 3, 3, 2]
    masks = np.concatenate([job.masks for job in jobs])
    counts = [int((masks == mask).all(axis=(1, 2, 3)).sum()) for mask in upload.masks]
    assert counts == [2] * 10
    ids = [sample_id for job in jobs for sample_id in job.sample_ids]
    assert ids == [f"a-{index:05d}" for index in range(20)]


def test_same_job_same_images(generator: Generator, upload: GeneratorUpload) -> None:
    jobs = plan_jobs(generator.settings, upload, client="a", num_samples=5, seed=0)
    first = run_job(generator, upload, jobs[0])
    run_job(generator, upload, jobs[1])
    again = run_job(generator, upload, jobs[0])
    for left, right in zip(first, again, strict=True):
        assert np.array_equal(left.image, right.image)
    sample = first[0]
    assert sample.image.shape == (32, 32, 3)
    assert sample.image.dtype == np.uint8
    assert (sample.client, sample.mask_origin) == ("a", "perturbed")
    assert np.array_equal(sample.mask, jobs[0].masks[0])
    assert not np.array_equal(first[0].image, first[1].image)


def test_procedural_masks_have_the_clients_areas(toy_config: Make, pairs: Sequence[Sample]) -> None:
    config = toy_config(masks="procedural")
    upload = tune_generator(config.build(), pairs, seed=0)
    jobs = plan_jobs(config, upload, client="a", num_samples=5, seed=0)
    masks = np.concatenate([job.masks for job in jobs])
    assert masks.shape == (5, 32, 32, 1)
    assert masks.any(axis=(1, 2, 3)).any()
    assert jobs[0].mask_origin == "procedural"


def test_style_diversity_changes_styles_only(generator: Generator, upload: GeneratorUpload) -> None:
    plain = plan_jobs(generator.settings, upload, client="a", num_samples=6, seed=0)
    settings = replace(generator.settings, style_diversity=1.0)
    other = upload.style * 0.5
    mixed = plan_jobs(settings, upload, client="a", num_samples=6, seed=0, other_styles=[other])
    for left, right in zip(plain, mixed, strict=True):
        assert np.array_equal(left.masks, right.masks)
        assert left.seeds == right.seeds
        assert not np.array_equal(left.style, right.style)
        assert (left.shifted, right.shifted) == ((False,) * 3, (True,) * 3)
    assert {s.style_origin for s in run_job(generator, upload, mixed[0])} == {"shifted"}


def test_images_fill_the_range_as_private_ones_do(
    generator: Generator, upload: GeneratorUpload
) -> None:
    """Styles at half brightness; a stretched image of 32 x 32 has at least 5 pixels at each end."""
    job = plan_jobs(generator.settings, upload, client="a", num_samples=2, seed=0)[0]
    for sample in run_job(generator, upload, replace(job, style=job.style * 0.5)):
        assert (sample.image == 0).sum() >= 5
        assert (sample.image == 255).sum() >= 5


def test_painting_floor(generator: Generator, upload: GeneratorUpload) -> None:
    job = plan_jobs(generator.settings, upload, client="a", num_samples=3, seed=0)[0]
    painted = paint_job(generator, job)
    assert [sample.sample_id for sample in painted] == list(job.sample_ids)
    assert painted[0].image.shape == (32, 32, 3)


def test_wrong_requests(toy_config: Make, generator: Generator, upload: GeneratorUpload) -> None:
    with pytest.raises(ConfigurationError, match="num_samples=0 draws nothing"):
        plan_jobs(generator.settings, upload, client="a", num_samples=0, seed=0)
    bare = replace(upload, masks=upload.masks[:0])
    with pytest.raises(ConfigurationError, match="client 'a' sent no masks"):
        plan_jobs(generator.settings, bare, client="a", num_samples=1, seed=0)
    job = plan_jobs(generator.settings, upload, client="a", num_samples=1, seed=0)[0]
    lora = toy_config(adapter="lora").build()
    with pytest.raises(CheckpointError, match="does not fit the lora ControlNet"):
        run_job(lora, upload, job)
