"""Stage 2: the server turns the uploaded ControlNets into one synthetic image-mask set.

``D~ = union over k of {(x~, m) : x~ = g(m; ControlNet_k), m in M_k}`` (paper, "Generation").
"""

import time
from pathlib import Path

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.methods.dsfedmed.generation_plan import planned_jobs
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.runtime.synthetic_store import GenerationOrder

STAGE = "synthesize"


def synthesize(context: RunContext, samples_per_client: int, uploads: Path, folder: Path) -> None:
    """Generates ``samples_per_client`` samples from each upload and writes them as Parquet.

    Raises:
        ConfigurationError: no client uploaded a ControlNet.
    """
    paths = {path.stem: path for path in sorted(uploads.glob("*.safetensors"))}
    if not paths:
        raise ConfigurationError(
            "no client uploaded a ControlNet; see the notes on dropped clients"
        )
    jobs = planned_jobs(context, samples_per_client, paths)
    context.journal.keep(STAGE, up_to_unit=-1)
    started = time.perf_counter()
    with context.progress.stage(STAGE, len(jobs)):

        def on_job(index: int) -> None:
            record = ProgressRecord(
                stage=STAGE, index=index, total=len(jobs), seconds=time.perf_counter() - started
            )
            context.progress.advance(record)
            context.stop.raise_if_set(context.resume_hint)

        context.engine.generate(
            GenerationOrder(
                generator=context.generator,
                uploads=paths,
                jobs=jobs,
                folder=folder,
                on_job=on_job,
            )
        )
    seconds = time.perf_counter() - started
    context.journal.progress(
        ProgressRecord(
            stage=STAGE,
            index=len(jobs) - 1,
            total=len(jobs),
            seconds=seconds,
            values={"num_samples": float(samples_per_client * len(paths))},
        )
    )
