"""How good the synthetic set is, measured in every run with the private images at hand.

Instruments of the simulator: nothing measured here travels, enters the ledger or guides training.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsfedmed_ray.data.synthetic_samples import read_synthetic
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.evaluation.synthesis_quality import (
    ClientQuality,
    kernel_distance,
    summarise_quality,
)
from dsfedmed_ray.evaluation.synthetic_figure import ClientImages, draw_synthetic
from dsfedmed_ray.methods.ask_foundation import ask_foundation
from dsfedmed_ray.methods.dsfedmed.generation_plan import planned_jobs
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.records import ProgressRecord, SyntheticSample
from dsfedmed_ray.run_directory import write_json
from dsfedmed_ray.runtime.local_training import LocalTraining

STAGE = "measure_synthesis"
QUALITY_FILE = "quality.json"
PICTURE_FILE = "synthetic.png"
MAX_PICTURED_CLIENTS = 8


@dataclass(frozen=True, kw_only=True)
class SynthesisChecks:
    """What is measured.

    Attributes:
        fit_steps: optimiser steps of each small segmenter that is trained for TSTR; 0 turns the
            checks off.
        with_floor: whether the painting floor is measured as well, one more fit a client.
    """

    fit_steps: int = 150
    with_floor: bool = True

    def __post_init__(self) -> None:
        if self.fit_steps < 0:
            raise ConfigurationError(
                f"method.checks.fit_steps is {self.fit_steps}; 0 (off) or more"
            )

    def check(self, generator: Any) -> None:
        """Checks what only the generator can tell.

        Raises:
            ConfigurationError: the floor is asked of a generator that does not paint, or no image
                is drawn in its client's own style.
        """
        if self.fit_steps > 0 and generator.style_diversity == 1:
            raise ConfigurationError(
                "generator.style_diversity=1 draws no image in its client's own style, and the "
                "quality checks judge these alone; set schedule.quality_steps=0 or "
                "generator.style_diversity below 1"
            )
        if self.fit_steps > 0 and self.with_floor and not generator.has_painting:
            raise ConfigurationError(
                "method.checks.with_floor measures what a generator paints before it diffuses, "
                f"and {type(generator).__name__} paints nothing; set schedule.quality_floor=false, "
                "or generator=embedded"
            )


def measure_synthesis(
    context: RunContext,
    local: LocalTraining,
    checks: SynthesisChecks,
    *,
    samples_per_client: int,
    uploads: Path,
    synthetic: Path,
    folder: Path,
) -> None:
    """Measures every client that uploaded a ControlNet; writes numbers and a picture."""
    paths = {path.stem: path for path in sorted(uploads.glob("*.safetensors"))}
    jobs = planned_jobs(context, samples_per_client, paths) if checks.with_floor else []
    clients = [c for c in context.all_clients() if context.split.client_name(c) in paths]
    measured: dict[str, ClientQuality] = {}
    started = time.perf_counter()
    context.journal.keep(STAGE, up_to_unit=-1)
    with context.progress.stage(STAGE, len(clients)):
        arguments = (synthetic, jobs, checks.fit_steps)
        for client, quality in context.pool(local).map("measure_synthesis", clients, *arguments):
            measured[context.split.client_name(client)] = quality
            record = ProgressRecord(
                stage=STAGE,
                index=client,
                total=len(clients),
                seconds=time.perf_counter() - started,
                values={"tstr_ratio": quality.tstr_ratio, "mask_agreement": quality.mask_agreement},
            )
            context.journal.progress(record)
            context.progress.advance(record)
    names = sorted(measured)
    # The distance is computed here: its library takes memory that the server needs for training.
    features = ask_foundation(
        context, lambda server: server.call("client_features", synthetic, names).result()
    )
    in_order = {
        name: replace(measured[name], kid=kernel_distance(*features[name], seed=context.seed))
        for name in names
    }
    write_json(folder / QUALITY_FILE, summarise_quality(in_order))
    _draw(context, list(in_order)[:MAX_PICTURED_CLIENTS], synthetic, folder / PICTURE_FILE)


def _draw(context: RunContext, names: list[str], synthetic: Path, path: Path) -> None:
    by_client: dict[str, list[SyntheticSample]] = {name: [] for name in names}
    for sample in read_synthetic(synthetic):
        if sample.client in by_client:
            by_client[sample.client].append(sample)
    draw_synthetic(
        {
            name: ClientImages(real=context.split.samples(name, "train"), synthetic=samples)
            for name, samples in by_client.items()
        },
        path,
    )


def read_quality(folder: Path) -> dict[str, Any]:
    """The ``generator`` entry of the summary."""
    content: dict[str, Any] = json.loads((folder / QUALITY_FILE).read_text(encoding="utf-8"))
    return content
