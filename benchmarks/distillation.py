"""How long distillation takes: this package's, and the release's loop on the same models.

``python benchmarks/distillation.py --json PATH [--size 128 256] [--precision fp32 bf16]``
``python benchmarks/distillation.py --json PATH --one-cpu``

LiteMedSAM as ``conf/foundation/litemedsam.yaml`` ships it, the embedded U-Net and the structures of
the embedded federation; random weights, 96 samples, 20 epochs, ratio 0.5, in one process with the
same threads and number format for both. Ours runs ``--every-epochs`` epochs at a time, so that each
stretch scores the pool once; between two stretches the release's loop runs one epoch. Two of its
epochs are timed and both are scaled to 20. Ours without selection is timed as well. Times are wall
time: run it on an otherwise idle machine.

``--trainable decoder`` freezes the whole encoder, as the release does.

``--one-cpu`` compares something else: stage 5 in one process, and with the foundation model in an
actor that is asked ahead, both on one and the same CPU.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from dsfedmed_ray.configuration import build_part, compose
from dsfedmed_ray.data.brain_sites import BrainSitesConfig
from dsfedmed_ray.data.splits import LeaveOneSiteOut, SplitFederation
from dsfedmed_ray.data.synthetic_samples import read_synthetic, to_table, write_synthetic
from dsfedmed_ray.learning.augmentation import Augmentation
from dsfedmed_ray.learning.learnability import Selection, authors_batch_rows
from dsfedmed_ray.learning.losses import symmetric_kl
from dsfedmed_ray.learning.mutual_distillation import Distillation, PoolLearner
from dsfedmed_ray.learning.segmentation_training import Pairs
from dsfedmed_ray.methods.dsfedmed.exchange_logits import LogitExchange
from dsfedmed_ray.models.litemedsam import LiteMedSAMConfig
from dsfedmed_ray.models.precision import arithmetic, compute_dtype
from dsfedmed_ray.models.sam_segmenter import SamSegmenter
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.records import SyntheticSample
from dsfedmed_ray.runtime.demand import Demand
from dsfedmed_ray.runtime.engine import LocalFoundation
from dsfedmed_ray.runtime.foundation_server import FoundationSettings
from dsfedmed_ray.runtime.pending import FoundationHandle

EPOCHS, BATCH, RATIO = 20, 4, 0.5
LEARNING_RATE, POSITIVE_WEIGHT, SUPERVISED, DIVERGENCE = 1e-4, 2.0, 0.9, 0.1
CPU = torch.device("cpu")


def foundation_config(size: int, trainable: str | None) -> LiteMedSAMConfig:
    """The shipped file with random weights; ``trainable`` is the file's unless given."""
    overrides = ["foundation=litemedsam", "foundation.weights=random"]
    overrides += [f"foundation.input_size={size}"]
    overrides += [] if trainable is None else [f"foundation.trainable={trainable}"]
    return build_part(compose(overrides), "foundation")


def model_shape(split: SplitFederation) -> dict[str, int]:
    """What both models are built for."""
    federation = split.federation
    return {
        "num_structures": len(federation.structures),
        "image_size": federation.image_size,
        "seed": 0,
    }


class ReleaseLoop:
    """The release's distillation in our words.

    Every batch of every epoch goes through the whole encoder, both models run on all of it, and
    selection comes after: rows that both models get right, half of these by divergence. The
    supervised terms take the whole batch. One joint loss, nothing detached, no augmentation.
    """

    def __init__(self, settings: FoundationSettings, pool: Path) -> None:
        shape = model_shape(settings.split)
        self._foundation: SamSegmenter = settings.model.build(**shape).eval()
        self._lightweight = UNetConfig().build(**shape).eval()
        self._pairs = Pairs.of(read_synthetic(pool))
        self._precision = settings.precision
        trained = [p for p in self._foundation.parameters() if p.requires_grad]
        self._optimizers = [
            torch.optim.Adam(parameters, lr=LEARNING_RATE)
            for parameters in (trained, self._lightweight.parameters())
        ]

    def epoch(self) -> None:
        for rows in torch.randperm(len(self._pairs)).split(BATCH):
            images, masks = self._pairs.batch(rows)
            with arithmetic(self._precision, CPU):
                foundation = self._foundation(images)
            lightweight = self._lightweight(images)
            loss = self._loss(foundation, lightweight, masks)
            for optimizer in self._optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in self._optimizers:
                optimizer.step()

    def _loss(self, foundation: Tensor, lightweight: Tensor, masks: Tensor) -> Tensor:
        weight = torch.tensor(POSITIVE_WEIGHT)
        supervised = sum(
            functional.binary_cross_entropy_with_logits(logits, masks, pos_weight=weight)
            for logits in (foundation, lightweight)
        )
        counted = authors_batch_rows(
            foundation.detach(), lightweight.detach(), masks, ratio=RATIO
        ).float()
        divergence = (symmetric_kl(foundation, lightweight) * counted).sum()
        return SUPERVISED * supervised + DIVERGENCE * divergence / counted.sum().clamp(min=1)


def our_exchange(
    foundation: FoundationHandle, pool: Path, split: SplitFederation, selection: Selection
) -> LogitExchange:
    """Stage 5 as a run does it, on a pool whose embeddings are kept."""
    config = Distillation(
        epochs=EPOCHS,
        batch_size=BATCH,
        positive_weight=POSITIVE_WEIGHT,
        augmentation=Augmentation(),
    )
    foundation.call("start_distillation", config).result()
    pairs = Pairs.of(read_synthetic(pool))
    learner = PoolLearner(
        UNetConfig().build(**model_shape(split)),
        pairs.images,
        pairs.masks,
        learning_rate=config.lightweight_learning_rate,
        config=config,
        augmentation=config.augmentation,
    )
    return LogitExchange(
        foundation, learner, pairs.masks, config=config, selection=selection, seed=0
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall time."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def timed_epoch(exchange: LogitExchange, epochs: int) -> float:
    """Mean seconds of the first epochs; in the first both models pass over the pool."""
    return timed(lambda: [exchange.epoch(epoch) for epoch in range(epochs)]) / epochs


def make_pool(split: SplitFederation, folder: Path, num_samples: int) -> None:
    """Pairs of the embedded federation stand for synthetic ones: only their size matters here."""
    pairs = [
        SyntheticSample(
            sample_id=f"{number:04d}",
            image=sample.image,
            mask=sample.mask,
            client=site,
            mask_origin="client",
            style_origin="client",
            seed=0,
        )
        for number, (site, sample) in enumerate(
            (site, sample) for site in split.seen_sites for sample in split.samples(site, "train")
        )
    ]
    assert len(pairs) >= num_samples, f"{len(pairs)} pairs, {num_samples} are needed"
    write_synthetic(to_table(pairs[:num_samples]), folder / "pool.parquet")


def settings_for(
    size: int, precision: str, given: argparse.Namespace, folder: Path
) -> FoundationSettings:
    """Writes the pool; gives the server's settings, with the federation that the pool is from."""
    data = BrainSitesConfig(image_size=size, sequences=("t1", "pd"), pairs_per_site=100)
    split = LeaveOneSiteOut().apply(data.build())
    make_pool(split, folder, given.samples)
    return FoundationSettings(
        model=foundation_config(size, given.trainable),
        split=split,
        seed=0,
        embeddings_folder=folder / "embeddings",
        num_threads=given.threads,
        precision=precision,
    )


def measure(size: int, precision: str, given: argparse.Namespace) -> dict[str, object]:
    """Seconds of 20 epochs of each loop at one image size."""
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder)
        settings = settings_for(size, precision, given, pool)
        foundation = LocalFoundation(settings)
        embedding = timed(lambda: foundation.call("open_pool", pool))
        release = ReleaseLoop(settings, pool)
        seconds: dict[str, list[float]] = {"release": [], "ours": [], "unselected": []}
        selection = Selection(ratio=RATIO, every_epochs=given.every_epochs)
        for _ in range(given.release_epochs):
            seconds["release"].append(timed(release.epoch))
            ours = our_exchange(foundation, pool, settings.split, selection)
            seconds["ours"].append(timed_epoch(ours, given.every_epochs))
            whole = our_exchange(foundation, pool, settings.split, Selection(ratio=1.0))
            seconds["unselected"].append(timed_epoch(whole, given.unselected_epochs))
    total = {name: EPOCHS * statistics.mean(values) for name, values in seconds.items()}
    return {
        "trainable": settings.model.trainable,
        "release_seconds": total["release"],
        "our_seconds": total["ours"],
        "embedding_seconds": embedding,
        "speedup": total["release"] / total["ours"],
        "speedup_with_embedding": total["release"] / (total["ours"] + embedding),
        "unselected_seconds": total["unselected"],
        "saved_by_selection": 1 - total["ours"] / total["unselected"],
    }


def measure_one_cpu(
    size: int, precision: str, given: argparse.Namespace, repeats: int
) -> dict[str, float]:
    """Seconds of an epoch in one process, and with the foundation model in an actor of its own.

    This process and all that Ray starts share one CPU.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import ray

    from dsfedmed_ray.runtime.foundation_actor import RemoteFoundation

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder)
        settings = settings_for(size, precision, given, pool)
        handles: dict[str, FoundationHandle] = {
            "one_process": LocalFoundation(settings),
            "actor": RemoteFoundation(settings, Demand(num_gpus=0)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in handles}
        for handle in handles.values():
            handle.call("open_pool", pool).result()
        for _ in range(1 + repeats):
            for name, handle in handles.items():
                exchange = our_exchange(handle, pool, settings.split, Selection(ratio=RATIO))
                seconds[name].append(timed_epoch(exchange, 1))
    ray.shutdown()
    # The first epoch of each warms up.
    mean = {name: statistics.mean(values[1:]) for name, values in seconds.items()}
    return {
        "one_process_seconds": mean["one_process"],
        "actor_seconds": mean["actor"],
        "actor_against_one_process": mean["actor"] / mean["one_process"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--trainable", choices=["decoder", "last_stage"], help="else the file's")
    parser.add_argument("--samples", type=int, default=96, help="of the pool")
    parser.add_argument("--every-epochs", type=int, default=5, help="of one pass over the pool")
    parser.add_argument("--release-epochs", type=int, default=2, help="timed of the release's loop")
    parser.add_argument("--unselected-epochs", type=int, default=2, help="timed each time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one-cpu", action="store_true", help="one process against an actor")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    if given.one_cpu:
        result = measure_one_cpu(given.size[0], given.precision[0], given, repeats=4)
        print(result, flush=True)
        given.json.write_text(json.dumps(result, indent=2) + "\n")
        return
    result = {}
    for size in given.size:
        for precision in given.precision:
            row = measure(size, precision, given)
            result[f"{size} px, {compute_dtype(precision, CPU)}"] = row
            print(size, precision, row, flush=True)
            given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
