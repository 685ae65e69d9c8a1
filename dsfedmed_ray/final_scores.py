"""Scores of a finished method on the seen sites' test parts and on the whole unseen site."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsfedmed_ray.accounting.communication import Ledger, read_transfers
from dsfedmed_ray.accounting.inference import measure_inference_ms
from dsfedmed_ray.errors import FoundationLostError
from dsfedmed_ray.evaluation.evaluator import score, site_metrics
from dsfedmed_ray.evaluation.pictures import draw_predictions, median_prediction
from dsfedmed_ray.methods import fedavg
from dsfedmed_ray.methods.dsfedmed import measure_synthesis, synthesize
from dsfedmed_ray.methods.method import MethodResult, RunContext, broadcast_transfers, layout_of
from dsfedmed_ray.methods.resumable import MAX_FOUNDATION_LOSSES
from dsfedmed_ray.models.segmenter import Segmenter, State
from dsfedmed_ray.records import SegmentationScores
from dsfedmed_ray.run_directory import copy_atomically
from dsfedmed_ray.summary import Scores

BATCH_SIZE = 16
DELIVERY = "deliver"
MAX_SCORED_SITES = 100
"""Of a population, this many seen sites are scored: the first ones."""

Evaluate = Callable[[Sequence[str]], dict[str, SegmentationScores]]


def final_summary(context: RunContext, result: MethodResult, method: str) -> Any:
    """The summary of a run, without times and versions.

    The final lightweight model goes back to every client: that is counted here, as the stage
    ``deliver``.
    """
    device = torch.device(context.server_device)
    model = context.build(context.lightweight).to(device)
    metrics = {"lightweight": _groups(context, _lightweight(context, model, result.lightweight))}
    size = context.split.federation.image_size
    inference_ms = {"lightweight": measure_inference_ms(model, size, device=device).median_ms}
    if result.foundation is not None:
        metrics["foundation"], inference_ms["foundation"] = _foundation(context, result.foundation)
    baselines: dict[str, dict[str, Any]] = {
        name: {"lightweight": _groups(context, _lightweight(context, model, state))}
        for name, state in result.rows.items()
    }
    _deliver(context, result.lightweight)
    _copy_synthetic_set(context)
    _draw_examples(context, model, result.lightweight)
    ledger = Ledger(read_transfers(context.directory.transfers))
    for row in baselines.values():
        row["inference_ms"] = inference_ms["lightweight"]
        row["per_client_bytes"] = _rounds_alone(ledger)
    return {
        "method": method,
        "data": context.split.federation.name,
        "split": {"unseen_site": context.split.unseen_site},
        "seed": context.seed,
        "metrics": metrics,
        "communication": ledger.summary(),
        "inference_ms": inference_ms,
        "generator": result.generator_quality,
        "baselines": baselines,
    }


def _rounds_alone(ledger: Ledger) -> float:
    """Bytes a client of the federated rounds and the delivery: what plain averaging sends."""
    stages = ledger.by_stage
    sent = stages.get(fedavg.STAGE, 0) + stages.get(DELIVERY, 0)
    return sent / max(len(ledger.by_client), 1)


def _lightweight(context: RunContext, model: Segmenter, state: State) -> Evaluate:
    def evaluate(sites: Sequence[str]) -> dict[str, SegmentationScores]:
        model.load_trainable_state(state)
        model.eval()
        return {
            site: score(
                lambda images: model(images.to(context.server_device)),
                context.split.samples(site, "test"),
                batch_size=BATCH_SIZE,
            )
            for site in sites
        }

    return evaluate


def _foundation(context: RunContext, state: State) -> tuple[dict[str, dict[str, Scores]], float]:
    """Scores and milliseconds an image; both start again when the model's process dies."""
    server = context.foundation_server()

    def evaluate(sites: Sequence[str]) -> dict[str, SegmentationScores]:
        scores: dict[str, SegmentationScores] = server.call("evaluate", sites, "test").result()
        return scores

    losses = 0
    while True:
        try:
            server.call("load_trainable_state", state).result()
            groups = _groups(context, evaluate)
            return groups, server.call("inference_time").result().median_ms
        except FoundationLostError:
            losses += 1
            if losses > MAX_FOUNDATION_LOSSES:
                raise
            context.progress.note("the foundation model's process died; it is scored again")
            server.replace()


def _groups(context: RunContext, evaluate: Evaluate) -> dict[str, dict[str, Scores]]:
    num_sites = min(MAX_SCORED_SITES, context.split.num_clients)
    sites = [context.split.seen_sites[index] for index in range(num_sites)]
    groups = {"seen": site_metrics(evaluate(sites))}
    if context.split.unseen_site is not None:
        groups["unseen"] = site_metrics(evaluate([context.split.unseen_site]))
    return groups


def _draw_examples(context: RunContext, model: Segmenter, state: State) -> None:
    """One prediction a site, the unseen one last."""
    model.load_trainable_state(state)
    model.eval()
    sites = [context.split.seen_sites[i] for i in range(min(7, context.split.num_clients))]
    if context.split.unseen_site is not None:
        sites.append(context.split.unseen_site)
    pictures = {
        site: median_prediction(
            lambda images: model(images.to(context.server_device)),
            context.split.samples(site, "test"),
        )
        for site in sites
    }
    draw_predictions(pictures, context.directory.figures / "predictions.png")


def _deliver(context: RunContext, state: State) -> None:
    flat = layout_of(context.build(context.lightweight)).flatten(state)
    names = [context.split.client_name(client) for client in context.all_clients()]
    context.journal.keep(DELIVERY, up_to_unit=-1)
    context.journal.transfers(
        broadcast_transfers(names, flat, stage=DELIVERY, what="state", round_index=None)
    )


def _copy_synthetic_set(context: RunContext) -> None:
    """The synthetic set and its picture belong to the run directory as well as to the store."""
    if synthesize.STAGE in context.stages:
        for path in sorted(context.stages[synthesize.STAGE].folder.glob("*.parquet")):
            copy_atomically(path, context.directory.synthetic / path.name)
    if measure_synthesis.STAGE in context.stages:
        name = measure_synthesis.PICTURE_FILE
        picture = context.stages[measure_synthesis.STAGE].folder / name
        copy_atomically(picture, context.directory.figures / name)
