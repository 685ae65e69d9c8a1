"""Time and memory of the paper's parts on one GPU, at their real sizes, with random weights.

``python benchmarks/paper_scale.py --json PATH [--only NAME ...]`` on a machine with a GPU;
``--toy`` shrinks everything and runs on CPUs too. Each part has a process of its own. A step's
time is the median of ``--steps`` after one that warms up; memory is the peak that torch held for
tensors (``allocated``) and took from the GPU (``reserved``), without the CUDA context.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from random_stable_diffusion import write_stable_diffusion

from dsfedmed_ray.configuration import build_part, compose
from dsfedmed_ray.data.brain_sites import BrainSitesConfig
from dsfedmed_ray.data.splits import LeaveOneSiteOut
from dsfedmed_ray.data.synthetic_samples import to_table, write_synthetic
from dsfedmed_ray.learning.foundation_adaptation import Adaptation
from dsfedmed_ray.learning.generator_training import tune_generator
from dsfedmed_ray.learning.image_generation import plan_jobs, run_job
from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.learning.segmentation_training import (
    Pairs,
    SegmentationTraining,
    make_optimizer,
    train_on_pairs,
)
from dsfedmed_ray.records import Sample, SyntheticSample
from dsfedmed_ray.runtime.foundation_server import FoundationServer, FoundationSettings
from dsfedmed_ray.seeding import torch_generator

BATCH, STRUCTURES = 4, 2


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a part is measured at.

    Attributes:
        device: ``cuda`` or ``cpu``.
        toy: small models and images.
        steps: timed ones.
        folder: for weights and embeddings.
    """

    device: str
    toy: bool
    steps: int
    folder: Path

    @property
    def image_size(self) -> int:
        return 64 if self.toy else 1024


def random_pairs(count: int, size: int) -> list[Sample]:
    """Noise with a square in it for each structure: only the size matters."""
    random = np.random.default_rng(0)
    mask = np.zeros((size, size, STRUCTURES), np.uint8)
    mask[size // 4 : size // 2, size // 4 : size // 2] = 1
    return [
        Sample(
            sample_id=f"{number:04d}",
            image=random.integers(0, 256, (size, size, 3), np.uint8),
            mask=mask,
        )
        for number in range(count)
    ]


def timed_steps(step: Callable[[], object], scale: Scale) -> dict[str, float]:
    """Median milliseconds of a step after one that warms up, and the peak of memory so far."""
    durations = []
    for _ in range(1 + scale.steps):
        started = time.perf_counter()
        step()
        if scale.device == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - started)
    return {"step_ms": 1000 * statistics.median(durations[1:]), **peak_memory(scale.device)}


def peak_memory(device: str) -> dict[str, float]:
    """GiB at the peak; nothing on CPUs, where torch does not count."""
    if device != "cuda":
        return {}
    return {
        "allocated_gib": torch.cuda.max_memory_allocated() / 2**30,
        "reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
    }


def stable_diffusion(scale: Scale, adapter: str, work: str) -> dict[str, float]:
    """Steps of tuning at 512 px and batch 1, or the drawing of four images by 30 steps."""
    folder = scale.folder / "stable_diffusion"
    if not (folder / "tokenizer").exists():
        write_stable_diffusion(folder, "toy" if scale.toy else "full", scale.device)
    steps = 1 + scale.steps if work == "tune" else 1
    overrides = [f"generator.path={folder}", f"generator.adapter={adapter}"]
    overrides += [f"generator.steps={steps}"]
    if scale.toy:
        overrides += ["generator.resolution=64", "generator.num_inference_steps=2"]
        overrides += ["generator.lora_rank=2"]
    config = build_part(compose(["generator=sd15", *overrides]), "generator")
    generator = config.build(device=scale.device)
    ends = [time.perf_counter()]
    upload = tune_generator(
        generator,
        random_pairs(BATCH, 64 if scale.toy else 512),
        seed=0,
        progress=lambda *_: ends.append(time.perf_counter()),  # the loss was read: all is done
    )
    if work == "tune":
        return {"step_ms": 1000 * float(np.median(np.diff(ends[1:]))), **peak_memory(scale.device)}
    (job, *_) = plan_jobs(config, upload, client="a", num_samples=config.images_per_job, seed=0)
    if scale.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return timed_steps(lambda: list(run_job(generator, upload, job)), scale)


def segmenter_training(scale: Scale, name: str, trainable: str | None) -> dict[str, float]:
    """A client's training steps of a whole model, batch 4."""
    overrides = [f"lightweight={name}", "lightweight.weights=random"]
    overrides += [f"lightweight.input_size={scale.image_size}"]
    overrides += [] if trainable is None else [f"lightweight.trainable={trainable}"]
    config = build_part(compose(overrides), "lightweight")
    model = config.build(num_structures=STRUCTURES, image_size=scale.image_size, seed=0)
    model.to(scale.device)
    training = SegmentationTraining(steps=1, batch_size=BATCH)
    pairs = Pairs.of(random_pairs(BATCH, scale.image_size), torch.device(scale.device))
    optimizer = make_optimizer(model, training)
    stream = torch_generator(0, "paper_scale")
    return timed_steps(lambda: train_on_pairs(model, optimizer, pairs, training, stream), scale)


def foundation_server(scale: Scale, work: str) -> dict[str, float]:
    """SAM-B on the server: embedding four images, or a step of stage 4 or 5 from embeddings."""
    overrides = ["foundation=sam_vit_b", "foundation.weights=random"]
    overrides += [f"foundation.input_size={scale.image_size}"]
    split = LeaveOneSiteOut().apply(
        BrainSitesConfig(
            image_size=scale.image_size, sequences=("t1", "pd"), pairs_per_site=10
        ).build()
    )
    folder = scale.folder / work
    settings = FoundationSettings(
        model=build_part(compose(overrides), "foundation"),
        split=split,
        seed=0,
        embeddings_folder=folder / "embeddings",
        precision="auto",
        num_gpus=float(scale.device == "cuda"),
    )
    structures = len(split.federation.structures)
    write_pool(folder, scale.image_size, structures)
    server = FoundationServer(settings)
    if work == "embed":
        return embedding_steps(server, folder, scale)
    server.open_pool(folder)
    if scale.device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # the pool's embedding has a row of its own
    if work == "adapt":
        server.start_adaptation(Adaptation(epochs=1 + scale.steps, batch_size=BATCH))
        epochs = iter(range(1 + scale.steps))
        return timed_steps(lambda: server.adapt_epoch(next(epochs)), scale)
    server.start_distillation(Distillation(epochs=1, batch_size=BATCH))
    server.start_epoch(0)
    rows = torch.arange(BATCH)
    return timed_steps(lambda: server.finish(server.begin(rows, 0, "paper_scale"), None), scale)


def embedding_steps(server: FoundationServer, folder: Path, scale: Scale) -> dict[str, float]:
    """Embedding the pool of four images again and again."""

    def embed() -> None:
        for file in (folder / "embeddings").rglob("*"):
            if file.is_file():
                file.unlink()
        server.open_pool(folder)

    return timed_steps(embed, scale)


def write_pool(folder: Path, size: int, structures: int) -> None:
    """Four synthetic samples."""
    folder.mkdir(parents=True)
    samples = [
        SyntheticSample(
            sample_id=pair.sample_id,
            image=pair.image,
            mask=np.repeat(pair.mask[:, :, :1], structures, axis=2),
            client="a",
            mask_origin="client",
            style_origin="client",
            seed=0,
        )
        for pair in random_pairs(BATCH, size)
    ]
    write_synthetic(to_table(samples), folder / "pool.parquet")


PARTS: dict[str, Callable[[Scale], dict[str, float]]] = {
    "sd15, tuning, full": partial(stable_diffusion, adapter="full", work="tune"),
    "sd15, tuning, lora": partial(stable_diffusion, adapter="lora", work="tune"),
    "sd15, drawing four images": partial(stable_diffusion, adapter="full", work="draw"),
    "sam_vit_b, embedding four images": partial(foundation_server, work="embed"),
    "sam_vit_b, stage 4, decoder": partial(foundation_server, work="adapt"),
    "sam_vit_b, stage 5, decoder": partial(foundation_server, work="distil"),
    "sam_vit_b, all of it": partial(segmenter_training, name="sam_vit_b", trainable="all"),
    "tinysam, all of it": partial(segmenter_training, name="tinysam", trainable=None),
}


def measure(name: str, scale: Scale) -> dict[str, float]:
    """One part's row."""
    return PARTS[name](scale)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--toy", action="store_true", help="small models; runs on CPUs too")
    given = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.toy:
        parser.error("no GPU here; --toy runs on CPUs")
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    rows: dict[str, object] = {"device": where, "torch": torch.__version__}
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        scale = Scale(device=device, toy=given.toy, steps=given.steps, folder=Path(folder))
        for name in given.only:
            with ProcessPoolExecutor(1, mp_context=spawn) as process:
                rows[name] = process.submit(measure, name, scale).result()
            print(name, rows[name], flush=True)
            given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
