"""Which jobs the synthetic set is made of: the same list for making it and for judging it."""

from pathlib import Path

from dsfedmed_ray.learning.generator_upload import GeneratorUpload
from dsfedmed_ray.learning.image_generation import GenerationJob, plan_jobs
from dsfedmed_ray.methods.run_context import RunContext


def planned_jobs(
    context: RunContext, samples_per_client: int, paths: dict[str, Path]
) -> list[GenerationJob]:
    """Every job of the synthetic set; styles may be mixed across clients (the server has all)."""
    uploads = {name: GeneratorUpload.load(path) for name, path in paths.items()}
    jobs: list[GenerationJob] = []
    for name, upload in uploads.items():
        jobs += plan_jobs(
            context.generator,
            upload,
            client=name,
            num_samples=samples_per_client,
            seed=context.seed,
            other_styles=[other.style for key, other in uploads.items() if key != name],
        )
    return jobs
