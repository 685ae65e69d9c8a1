"""Generation of the synthetic set, in this process or as a Ray Dataset over generator actors.

A job is a fixed batch of masks and seeds, so its images do not depend on who runs it or when. The
set is Parquet with Arrow's own fixed-shape tensors: ``pyarrow`` alone reads it.
"""

import pickle
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from dsfedmed_ray.data.synthetic_samples import to_table, write_synthetic
from dsfedmed_ray.errors import DSFedMedError, InterruptedRunError, WorkerLostError
from dsfedmed_ray.learning.generator_upload import GeneratorUpload
from dsfedmed_ray.learning.image_generation import GenerationJob, run_job
from dsfedmed_ray.runtime.demand import Demand
from dsfedmed_ray.runtime.devices import refusing_full_gpus, role_device, set_threads

MAX_ATTEMPTS = 3
_POLL_SECONDS = 0.5


class JobRunner:
    """Runs generation jobs with one resident backbone; loads a client's ControlNet when needed.

    Args:
        generator: the generator's configuration.
        uploads: each client's upload file.
        num_threads: torch threads.
        num_gpus: share of a GPU.
    """

    def __init__(
        self, generator: Any, uploads: dict[str, Path], num_threads: int, num_gpus: float
    ) -> None:
        set_threads(num_threads)
        with refusing_full_gpus():
            self._generator = generator.build(device=str(role_device(num_gpus)))
        self._uploads = uploads
        self._upload = lru_cache(maxsize=1)(self._load)  # jobs come client by client

    def _load(self, client: str) -> GeneratorUpload:
        return GeneratorUpload.load(self._uploads[client])

    def run(self, job: GenerationJob) -> pa.Table:
        """The job's samples as rows."""
        with refusing_full_gpus():
            return to_table(run_job(self._generator, self._upload(job.client), job))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Runs the jobs of a Ray Data batch."""
        jobs = [pickle.loads(row.as_py()) for row in batch["job"]]
        return pa.concat_tables([self.run(job) for job in jobs])


@dataclass(frozen=True, kw_only=True)
class GenerationOrder:
    """What stage 2 asks of an engine.

    Attributes:
        generator: the generator's configuration.
        uploads: each client's upload file.
        jobs: what to generate.
        folder: receives Parquet files.
        on_job: called with 0, 1, ... as jobs end.
    """

    generator: Any
    uploads: dict[str, Path]
    jobs: Sequence[GenerationJob]
    folder: Path
    on_job: Callable[[int], None]


def generate_here(order: GenerationOrder, *, num_threads: int, num_gpus: float) -> None:
    """Runs jobs one after the other in this process and writes them."""
    before = torch.get_num_threads()
    try:
        runner = JobRunner(order.generator, order.uploads, num_threads, num_gpus)
        for index, job in enumerate(order.jobs):
            write_synthetic(runner.run(job), order.folder / f"part-{index:05d}.parquet")
            order.on_job(index)
    finally:
        set_threads(before)


def generate_on_ray(
    order: GenerationOrder,
    *,
    num_threads: int,
    demand: Demand,
    num_actors: int,
    note: Callable[[str], None],
) -> None:
    """Runs jobs as a Ray Dataset over generator actors; each job becomes one Parquet file.

    If a generator actor dies, the set is started again, :data:`MAX_ATTEMPTS` times in all; a job
    gives the same images every time.

    Raises:
        UserError: a generator cannot work, for example for want of GPU memory.
        WorkerLostError: actors died in every attempt.
    """
    from dsfedmed_ray.runtime.ray_failures import LOST, unwrapping_user_errors

    for attempt in range(1, MAX_ATTEMPTS + 1):
        dataset = _dataset(order, num_threads=num_threads, demand=demand, num_actors=num_actors)
        try:
            with unwrapping_user_errors(), _counting_files(order.folder, order.on_job):
                dataset.write_parquet(str(order.folder))
            return
        except LOST as error:
            for path in order.folder.glob("*.parquet"):
                path.unlink()
            if attempt == MAX_ATTEMPTS:
                raise WorkerLostError(
                    f"generator actors died in each of {attempt} attempts; look at their memory: "
                    "lower generator.images_per_job or runtime.resources.num_generators"
                ) from error
            note("a generator actor died; the synthetic set is started again")


def _dataset(order: GenerationOrder, *, num_threads: int, demand: Demand, num_actors: int) -> Any:
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data._internal.tensor_extensions.arrow import FixedShapeTensorFormat
    from ray.util.annotations import RayDeprecationWarning

    from dsfedmed_ray.runtime.placement import keep_data_inside

    data_context = DataContext.get_current()
    data_context.arrow_fixed_shape_tensor_format = FixedShapeTensorFormat.ARROW_NATIVE
    data_context.enable_progress_bars = False
    keep_data_inside(data_context)
    rows = [{"job": pickle.dumps(job)} for job in order.jobs]
    with warnings.catch_warnings():
        # Ray Data restarts actors for ever unless max_restarts says otherwise, and there is no
        # other way yet to say it than the one it has begun to deprecate.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            JobRunner,
            fn_constructor_args=(
                order.generator,
                order.uploads,
                num_threads,
                float(demand.num_gpus),
            ),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=min(num_actors, len(order.jobs))),
            num_cpus=demand.num_cpus,
            num_gpus=float(demand.num_gpus),
            resources=dict(demand.resources) or None,
            max_restarts=0,
            max_task_retries=0,
        )


@contextmanager
def _counting_files(folder: Path, on_job: Callable[[int], None]) -> Iterator[None]:
    """Reports jobs by the files that appear, since a Ray Dataset writes out of our sight."""
    stop = threading.Event()
    seen = 0

    def report() -> None:
        nonlocal seen
        for index in range(seen, len(list(folder.glob("*.parquet")))):
            on_job(index)
            seen = index + 1

    def watch() -> None:
        # A signal ends the watching, not the work: Ray Data has no way to stop between jobs.
        with suppress(DSFedMedError):
            while not stop.wait(_POLL_SECONDS):
                report()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    with suppress(InterruptedRunError):  # the set is whole; the next stage heeds the signal
        report()
