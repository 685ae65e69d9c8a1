"""Measures the generator client by client: TSTR, floor, agreement, audit, times and a picture.

``python benchmarks/generator_quality.py OUT --root DATA [--sites a,b] [--set steps=300 ...]`` on a
folder of real images; without ``--root`` on the embedded brain sites. One thread; times are of
the processor, so that what else runs on the machine does not count.
"""

import argparse
import ast
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from dsfedmed_ray.data.splits import LeaveOneSiteOut
from dsfedmed_ray.evaluation.synthesis_quality import client_summary, measure_client
from dsfedmed_ray.evaluation.synthetic_figure import ClientImages, draw_synthetic
from dsfedmed_ray.learning.generator_training import tune_generator
from dsfedmed_ray.learning.image_generation import paint_job, plan_jobs, run_job
from dsfedmed_ray.learning.segmentation_training import (
    Pairs,
    SegmentationTraining,
    make_optimizer,
    train_on_pairs,
)
from dsfedmed_ray.models.generator import EmbeddedGeneratorConfig
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.seeding import torch_generator


def make_fit(steps: int, seed: int):
    training = SegmentationTraining(steps=steps, batch_size=8, learning_rate=3e-3)

    def fit(samples):
        size = samples[0].image.shape[0]
        model = UNetConfig().build(
            num_structures=samples[0].mask.shape[2], image_size=size, seed=seed
        )
        stream = torch_generator(seed, "quality_fit")
        train_on_pairs(model, make_optimizer(model, training), Pairs.of(samples), training, stream)
        return model.eval()

    return fit


def open_split(root: str | None, max_pairs: int):
    if root is None:
        from dsfedmed_ray.data.brain_sites import BrainSitesConfig

        federation = BrainSitesConfig().build()
    else:
        from dsfedmed_ray.data.folder_layout import FolderConfig

        federation = FolderConfig(root=root, group_regex="_[0-3]$", check_pairs=1).build()
    split = LeaveOneSiteOut(max_train_pairs=max_pairs, validation_fraction=0.3, test_fraction=0.0)
    return split.apply(federation)


def measure(site: str, split, config, given):
    train = list(split.samples(site, "train"))
    validation = list(split.samples(site, "validation"))
    generator = config.build()
    started = time.process_time()
    upload = tune_generator(generator, train, seed=given.seed)
    tuned = time.process_time()
    jobs = plan_jobs(config, upload, client=site, num_samples=given.samples, seed=given.seed)
    synthetic = [sample for job in jobs for sample in run_job(generator, upload, job)]
    drawn = time.process_time()
    painted = [sample for job in jobs for sample in paint_job(generator, job)]
    quality = measure_client(
        train=train,
        validation=validation,
        synthetic=synthetic,
        painted=() if given.no_floor else painted,
        fit=make_fit(given.fit_steps, given.seed),
        seed=given.seed,
    )
    numbers = client_summary(quality)
    numbers |= {
        "pairs": len(train),
        "loss": upload.final_loss,
        "tune_seconds": tuned - started,
        "images_per_second": len(synthetic) / (drawn - tuned),
        "measure_seconds": time.process_time() - drawn,
    }
    return numbers, ClientImages(real=train, synthetic=synthetic)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--root", help="folder of sites; the brain sites without it")
    parser.add_argument("--sites", help="comma-separated; all without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=48, help="synthetic images a client")
    parser.add_argument("--max-pairs", type=int, default=40)
    parser.add_argument("--fit-steps", type=int, default=150)
    parser.add_argument("--no-floor", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    fields = {field.name for field in dataclasses.fields(EmbeddedGeneratorConfig)}
    settings = dict(item.split("=", 1) for item in given.set)
    unknown = settings.keys() - fields
    if unknown:
        parser.error(f"unknown settings {sorted(unknown)}; the fields are {sorted(fields)}")
    config = EmbeddedGeneratorConfig(**{name: _value(text) for name, text in settings.items()})
    split = open_split(given.root, given.max_pairs)
    sites = given.sites.split(",") if given.sites else list(split.seen_sites)
    rows, pictures = {}, {}
    for site in sites:
        rows[site], pictures[site] = measure(site, split, config, given)
        shown = {name: round(float(value), 3) for name, value in rows[site].items()}
        print(site, json.dumps(shown), flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "quality.json").write_text(json.dumps(rows, indent=1))
    draw_synthetic(pictures, given.out / "synthetic.png")
    ratios = [row["tstr_ratio"] for row in rows.values()]
    agreement = sum(row["mask_agreement"] for row in rows.values()) / len(rows)
    print(f"tstr mean {sum(ratios) / len(ratios):.3f} min {min(ratios):.3f} agree {agreement:.3f}")


def _value(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    main()
