"""From a configuration to one run directory: the composition root."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dsfedmed_ray.data.splits import LeaveOneSiteOut, SplitFederation
from dsfedmed_ray.errors import ConfigurationError, RunDirectoryError
from dsfedmed_ray.final_scores import final_summary
from dsfedmed_ray.methods.method import Method
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.segmenter import SegmenterConfig
from dsfedmed_ray.models.weights import save_weights, with_known_weights
from dsfedmed_ray.progress import Progress
from dsfedmed_ray.run_directory import RunDirectory, write_atomically
from dsfedmed_ray.runtime.engine import RuntimeConfig, open_engine
from dsfedmed_ray.runtime.foundation_build import check_foundation
from dsfedmed_ray.runtime.journal import Journal
from dsfedmed_ray.runtime.object_stores import below, check_address, check_writable
from dsfedmed_ray.runtime.publishing import publish
from dsfedmed_ray.runtime.stage_store import StageStore
from dsfedmed_ray.summary import write_summary

PACKAGES = ("dsfedmed-ray", "ray", "torch", "monai", "diffusers", "segment-anything", "numpy")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run is made of, instantiated.

    Attributes:
        seed: of every random stream.
        resume: go on in an existing run directory.
        run_dir: the run's folder; None makes one under ``runs/`` with a time stamp.
        publish_to: address of an object store that receives a finished run directory, below it and
            under the directory's name; None publishes nothing.
        store_dir: where finished stages and embeddings are kept.
        store_remote: address of an object store through which machines share finished stages;
            None shares nothing. Embeddings stay in ``store_dir``.
        data: builds the federation.
        split: gives sites their roles.
        foundation: the foundation model.
        lightweight: the lightweight model.
        generator: the diffusion backbone and its fine-tuning.
        method: what is run.
        runtime: how it is placed.
        resolved: the whole configuration as YAML, for the run directory.
    """

    seed: int
    resume: bool
    run_dir: Path | None
    publish_to: str | None
    store_dir: Path
    store_remote: str | None
    data: Any
    split: LeaveOneSiteOut
    foundation: SegmenterConfig
    lightweight: SegmenterConfig
    generator: Any
    method: Method
    runtime: RuntimeConfig
    resolved: str

    def __post_init__(self) -> None:
        for key, uri in (("run.publish", self.publish_to), ("store.remote", self.store_remote)):
            if uri is not None:
                check_address(key, uri)
        if self.split.test_fraction == 0:
            raise ConfigurationError(
                "split.test_fraction is 0, which leaves no image to report on; 0.2, for example"
            )


def run(
    experiment: Experiment, progress: Progress, stop: StopRequest | None = None
) -> RunDirectory:
    """Runs an experiment to its end and writes its summary.

    Args:
        experiment: what to run.
        progress: shows what happens.
        stop: set by signal handlers; the run then saves and ends.

    Returns:
        The run directory, with ``summary.json`` written.

    Raises:
        UserError: something given cannot be used; nothing is left behind.
        InterruptedRunError: a signal came; ``resume=true`` goes on.
    """
    started = time.perf_counter()
    split = experiment.split.apply(experiment.data.build())
    check_models(experiment, split)
    with _context(experiment, split, progress, stop or StopRequest()) as context:
        directory = context.directory
        progress.note(f"run directory: {directory.root}")
        result = experiment.method.run(context)
        context.close_pool()  # scoring needs the memory more than idle clients do
        scored = time.perf_counter()
        summary = final_summary(context, result, experiment.method.name)
        summary["wall_seconds"] = {
            **{name: stage.seconds for name, stage in context.stages.items()},
            "evaluate": time.perf_counter() - scored,
            "total": time.perf_counter() - started,
        }
        summary["versions"] = _versions()
        write_atomically(
            directory.lightweight_model, lambda path: save_weights(result.lightweight, path)
        )
        write_summary(directory.summary, summary)
    return directory


def publish_run(experiment: Experiment, directory: RunDirectory) -> str | None:
    """Copies a finished run directory to where ``run.publish`` says.

    Returns:
        Its address there; None where it goes nowhere.

    Raises:
        RunDirectoryError: the store cannot be written.
    """
    if experiment.publish_to is None:
        return None
    uri = below(experiment.publish_to, directory.root.resolve().name)
    publish(directory.root, uri)
    return uri


def check_models(experiment: Experiment, split: SplitFederation) -> None:
    """Holds the method's models against the federation: what does not fit is known at once.

    Raises:
        UserError: a model or its weights cannot be used.
    """
    lightweight = experiment.lightweight.build(
        num_structures=len(split.federation.structures),
        image_size=split.federation.image_size,
        seed=experiment.seed,
    )
    experiment.method.check(lightweight, split, experiment.generator)
    if experiment.method.uses_foundation:
        workers = experiment.runtime.foundation_workers
        check_foundation(experiment.foundation, split, experiment.seed, num_workers=workers)


def run_directory(experiment: Experiment, name: str) -> RunDirectory:
    """The run directory, checked and not made yet.

    Args:
        experiment: ``run_dir`` names it, else the time.
        name: what stands behind the time.

    Raises:
        ConfigurationError: ``resume`` is set and ``run.dir`` is not.
        RunDirectoryError: it exists and ``resume`` is not set, or belongs to another
            configuration; or where it is to be published cannot be written.
    """
    if experiment.resume and experiment.run_dir is None:
        raise ConfigurationError(
            "resume=true goes on in the run directory that run.dir names; give run.dir=PATH too"
        )
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    directory = RunDirectory(experiment.run_dir or Path("runs") / f"{stamp}-{name}")
    if directory.root.exists():
        if not experiment.resume:
            raise RunDirectoryError(
                f"run directory {directory.root} exists; choose another run.dir, or resume=true "
                "to go on with it"
            )
        if not directory.config.exists() or (
            directory.config.read_text(encoding="utf-8") != experiment.resolved
        ):
            raise RunDirectoryError(
                f"run directory {directory.root} belongs to another configuration; resume it with "
                f"the settings in {directory.config}, or choose another run.dir"
            )
    if experiment.publish_to is not None:
        check_writable(experiment.publish_to)
    return directory


def keep_configuration(experiment: Experiment, directory: RunDirectory) -> None:
    """Writes the configuration into a run directory that has none yet, which makes it."""
    if not directory.config.exists():
        write_atomically(directory.config, lambda path: _write_text(path, experiment.resolved))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def train(
    experiment: Experiment, progress: Progress, stop: StopRequest | None = None
) -> RunDirectory:
    """Runs a method's stages and no test: what a trial of a study needs.

    The test parts and the unseen site stay untouched, and the stages stay in the store, where
    :func:`run` with the same settings finds them.

    Args:
        experiment: what to run.
        progress: shows what happens.
        stop: set by signal handlers; the run then saves and ends.

    Returns:
        The run directory, without a summary.

    Raises:
        UserError: something given cannot be used; nothing is left behind.
        InterruptedRunError: a signal came; ``resume=true`` goes on.
    """
    split = experiment.split.apply(experiment.data.build())
    check_models(experiment, split)
    with _context(experiment, split, progress, stop or StopRequest()) as context:
        context.with_rows = False
        experiment.method.run(context)
    return context.directory


@contextmanager
def _context(
    experiment: Experiment,
    split: SplitFederation,
    progress: Progress,
    stop: StopRequest,
) -> Iterator[RunContext]:
    note: Callable[[str], None] = progress.note
    directory = run_directory(experiment, experiment.method.name)
    if experiment.store_remote is not None:
        check_writable(experiment.store_remote)
    with open_engine(
        experiment.runtime,
        split.num_clients,
        note,
        uses_foundation=experiment.method.uses_foundation,
        folders=(directory.root, experiment.store_dir),
    ) as engine:
        foundation = experiment.foundation
        if experiment.method.uses_foundation:  # else its weights need not be there
            foundation = with_known_weights(foundation)
        # Made last: what the user or the cluster refuses leaves nothing behind.
        keep_configuration(experiment, directory)
        context = RunContext(
            seed=experiment.seed,
            split=split,
            lightweight=with_known_weights(experiment.lightweight),
            foundation=foundation,
            generator=experiment.generator,
            engine=engine,
            directory=directory,
            store=StageStore(experiment.store_dir.absolute(), experiment.store_remote),
            journal=Journal(directory),
            progress=progress,
            stop=stop,
            server_device="cuda" if torch.cuda.is_available() else "cpu",
            checkpoint_every=experiment.runtime.checkpoint_every,
            threads=experiment.runtime.threads,
            precision=experiment.runtime.precision,
            wire_dtype=experiment.runtime.wire_dtype,
            drops_clients=experiment.runtime.failures.on_client_error == "drop",
            availability=experiment.runtime.availability,
        )
        try:
            yield context
        finally:
            context.close()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
