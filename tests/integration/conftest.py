"""A toy federation, and a run's surroundings without Hydra and without the final report."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from dsfedmed_ray.data.brain_sites import BrainSitesConfig
from dsfedmed_ray.data.splits import LeaveOneSiteOut, SplitFederation
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.generator import EmbeddedGeneratorConfig
from dsfedmed_ray.models.litemedsam import LiteMedSAMConfig
from dsfedmed_ray.models.segmenter import SegmenterConfig
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.progress import Progress, SilentProgress
from dsfedmed_ray.run_directory import RunDirectory
from dsfedmed_ray.runtime.engine import Engine, RuntimeConfig, open_engine
from dsfedmed_ray.runtime.journal import Journal
from dsfedmed_ray.runtime.stage_store import StageStore

OpenContext = Callable[..., AbstractContextManager[RunContext]]


@pytest.fixture(scope="module")
def four_cpus() -> Iterator[None]:
    """Ray with four logical CPUs, for the tests of one module."""
    import ray

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(
            address="local",
            num_cpus=4,
            num_gpus=0,
            include_dashboard=False,
            # As a run has it. Stage 4 on several workers hands an epoch's 49 MB of model and
            # optimiser over in three or four copies; in less it would spill to the disk.
            object_store_memory=512 * 2**20,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def toy_split() -> SplitFederation:
    """Five clients with 8, 4, 6, 10 and 4 pairs of 32 pixels, and an unseen site."""
    data = BrainSitesConfig(
        image_size=32,
        structures=["white_matter"],
        num_sites=6,
        pairs_per_site=(8, 4, 6, 10, 4, 6),
        slices_per_subject=1,
    )
    return LeaveOneSiteOut(unseen_site="site_000005").apply(data.build())


@pytest.fixture(scope="session")
def toy_generator(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedGeneratorConfig:
    """An untrained backbone of 16 channels, tuned for two steps and sampled in two."""
    from dsfedmed_ray.models.tiny_diffusion import new_tiny_diffusion

    folder = tmp_path_factory.mktemp("backbone")
    parts = new_tiny_diffusion(0, block_channels=(16, 16))
    parts.codec.fit(torch.randn(20, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2)
    parts.save(folder)
    return EmbeddedGeneratorConfig(
        folder=str(folder),
        steps=2,
        batch_size=2,
        num_inference_steps=2,
        images_per_job=3,
        precision="fp32",
    )


@pytest.fixture(scope="session")
def open_context() -> OpenContext:
    """Opens a run on a folder; opening the same folder again resumes it."""

    @contextmanager
    def opened(
        folder: Path,
        runtime: RuntimeConfig,
        split: SplitFederation,
        *,
        lightweight: SegmenterConfig | None = None,
        foundation: SegmenterConfig | None = None,
        generator: Any = None,
        stop: StopRequest | None = None,
        progress: Progress | None = None,
        engine_of: Callable[[Engine], Engine] = lambda engine: engine,
    ) -> Iterator[RunContext]:
        progress = progress or SilentProgress()
        stop = stop or StopRequest()
        directory = RunDirectory(folder / "run")
        directory.root.mkdir(parents=True, exist_ok=True)
        with open_engine(runtime, split.num_clients, progress.note) as engine:
            context = RunContext(
                seed=3,
                split=split,
                lightweight=lightweight or UNetConfig(channels=(4, 8), num_res_units=0),
                foundation=foundation or LiteMedSAMConfig(input_size=64, weights="random"),
                generator=generator,
                engine=engine_of(engine),
                directory=directory,
                store=StageStore(folder / "store"),
                journal=Journal(directory),
                progress=progress,
                stop=stop,
                threads=runtime.threads,
                wire_dtype=runtime.wire_dtype,
                checkpoint_every=runtime.checkpoint_every,
                availability=runtime.availability,
            )
            try:
                yield context
            finally:
                context.close()

    return opened
