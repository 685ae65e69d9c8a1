"""Scores of a finished method on the seen sites' test parts and on the whole unseen site."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dsfedmed_ray.accounting.communication import Ledger, read_transfers
from dsfedmed_ray.accounting.inference import measure_inference_ms
from dsfedmed_ray.evaluation.evaluator import Predict, score, site_metrics
from dsfedmed_ray.evaluation.pictures import draw_predictions, median_prediction
from dsfedmed_ray.learning.aggregation import StateLayout
from dsfedmed_ray.methods import fedavg, plan_network
from dsfedmed_ray.methods.ask_foundation import ask_foundation
from dsfedmed_ray.methods.dsfedmed import (
    measure_synthesis,
    pipeline,
    refine_federated,
    synthesize,
    tune_generators,
)
from dsfedmed_ray.methods.exchange import broadcast_transfers
from dsfedmed_ray.methods.local_norms import NORMS_FILE, SiteStates, save_site_norms
from dsfedmed_ray.methods.method import MAX_SCORED_SITES, MethodResult
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.segmenter import Segmenter, State
from dsfedmed_ray.records import SegmentationScores
from dsfedmed_ray.run_directory import copy_atomically, read_json_lines, write_atomically
from dsfedmed_ray.runtime.pending import FoundationHandle
from dsfedmed_ray.summary import Scores

BATCH_SIZE = 16
DELIVERY = "deliver"

Evaluate = Callable[[Sequence[str]], dict[str, SegmentationScores]]


def final_summary(context: RunContext, result: MethodResult, method: str) -> Any:
    """The summary of a run, without times and versions.

    The final lightweight model goes back to every client that took part: that is counted here, as
    the stage ``deliver``.
    """
    device = torch.device(context.server_device)
    model = context.build(context.lightweight).to(device)
    final = _lightweight(context, model, result.lightweight, result.site_norms)
    metrics = {"lightweight": _groups(context, final)}
    size = context.split.federation.image_size
    inference_ms = {"lightweight": measure_inference_ms(model, size, device=device).median_ms}
    if result.foundation is not None:
        metrics["foundation"], inference_ms["foundation"] = _foundation(context, result.foundation)
    baselines: dict[str, dict[str, Any]] = {
        name: {
            "lightweight": _groups(
                context, _lightweight(context, model, state, result.row_norms.get(name, {}))
            )
        }
        for name, state in result.rows.items()
    }
    _deliver(context, result)
    _save_site_norms(context, result.site_norms)
    _copy_synthetic_set(context)
    _draw_examples(context, model, result)
    ledger = Ledger(read_transfers(context.directory.transfers))
    for name, row in baselines.items():
        row["inference_ms"] = inference_ms["lightweight"]
        row["per_client_bytes"] = row_bytes(context.directory.transfers, name)
    summary = {
        "method": method,
        "data": context.split.federation.name,
        "data_fingerprint": context.split.fingerprint(),
        "split": {"unseen_site": context.split.unseen_site},
        "seed": context.seed,
        "metrics": metrics,
        "communication": ledger.summary(),
        "inference_ms": inference_ms,
        "generator": result.generator_quality,
        "baselines": baselines,
    }
    simulated = _simulated_seconds(context)
    return {**summary, "simulated_seconds": simulated} if simulated else summary


def _simulated_seconds(context: RunContext) -> dict[str, float]:
    """By stage, what the virtual clock of ``runtime.availability`` counts; empty without one.

    Rounds come one after the other; clients upload their ControlNets side by side, so the slowest
    counts. The time of tuning them is not known: the clock's speed is that of the segmenter.
    """
    if not context.availability.has_clock:
        return {}
    rounds = [
        line["values"]["simulated_seconds"]
        for line in read_json_lines(context.directory.rounds)
        if line["stage"] in (fedavg.STAGE, refine_federated.STAGE)
    ]
    uploads: Counter[str] = Counter()
    for transfer in read_transfers(context.directory.transfers):
        if transfer.stage == tune_generators.STAGE:
            uploads[transfer.client] += transfer.num_bytes
    waits = [
        context.availability.seconds(
            context.seed, context.split.seen_sites.index(site), num_samples=0, num_bytes=num_bytes
        )
        for site, num_bytes in uploads.items()
    ]
    stages = {tune_generators.STAGE: max(waits, default=0.0), fedavg.STAGE: math.fsum(rounds)}
    return {stage: seconds for stage, seconds in stages.items() if seconds > 0}


def row_bytes(transfers: Path, row: str) -> float:
    """Bytes a client: plain averaging sends its rounds and delivers to those who took part in them.

    With the same refinement it sends these rounds as well; the other row sends what the whole
    method does.
    """
    if row not in ("fedavg", pipeline.REFINED_ROW):
        return Ledger(read_transfers(transfers)).per_client_bytes
    stages = [plan_network.STAGE, fedavg.STAGE]
    if row == pipeline.REFINED_ROW:
        stages.append(refine_federated.STAGE)
    joined = {line.client for line in read_transfers(transfers) if line.stage in stages}
    sent = (
        line
        for line in read_transfers(transfers)
        if line.client in joined and line.stage in (*stages, DELIVERY)
    )
    return Ledger(sent).per_client_bytes


def _lightweight(
    context: RunContext, model: Segmenter, state: State, site_norms: SiteStates
) -> Evaluate:
    """Each site with the normalisation that it kept; the mean of all where it kept none."""

    def evaluate(sites: Sequence[str]) -> dict[str, SegmentationScores]:
        return {
            site: score(
                _predict(context, model, {**state, **site_norms.get(site, {})}),
                context.split.samples(site, "test"),
                batch_size=BATCH_SIZE,
            )
            for site in sites
        }

    return evaluate


def _predict(context: RunContext, model: Segmenter, state: State) -> Predict:
    model.load_trainable_state(state)
    model.eval()
    return lambda images: model(images.to(context.server_device))


def _foundation(context: RunContext, state: State) -> tuple[dict[str, dict[str, Scores]], float]:
    """Scores and milliseconds an image."""

    def ask(server: FoundationHandle) -> tuple[dict[str, dict[str, Scores]], float]:
        def evaluate(sites: Sequence[str]) -> dict[str, SegmentationScores]:
            scores: dict[str, SegmentationScores] = server.call("evaluate", sites, "test").result()
            return scores

        server.call("load_trainable_state", state).result()
        groups = _groups(context, evaluate)
        return groups, server.call("inference_time").result().median_ms

    return ask_foundation(context, ask)


def _groups(context: RunContext, evaluate: Evaluate) -> dict[str, dict[str, Scores]]:
    num_sites = min(MAX_SCORED_SITES, context.split.num_clients)
    sites = [context.split.seen_sites[index] for index in range(num_sites)]
    groups = {"seen": site_metrics(evaluate(sites))}
    if context.split.unseen_site is not None:
        groups["unseen"] = site_metrics(evaluate([context.split.unseen_site]))
    return groups


def _draw_examples(context: RunContext, model: Segmenter, result: MethodResult) -> None:
    """One prediction a site, the unseen one last."""
    sites = [context.split.seen_sites[i] for i in range(min(7, context.split.num_clients))]
    if context.split.unseen_site is not None:
        sites.append(context.split.unseen_site)
    pictures = {
        site: median_prediction(
            _predict(context, model, {**result.lightweight, **result.site_norms.get(site, {})}),
            context.split.samples(site, "test"),
        )
        for site in sites
    }
    draw_predictions(pictures, context.directory.figures / "predictions.png")


def _deliver(context: RunContext, result: MethodResult) -> None:
    """The final model goes to every client that took part in the run, of a population to no other.

    What clients kept (FedBN) they have already.
    """
    kept = set(next(iter(result.site_norms.values()), {}))
    state = {name: value for name, value in result.lightweight.items() if name not in kept}
    flat = StateLayout.of(state).flatten(state)
    context.journal.keep(DELIVERY, up_to_unit=-1)
    names = sorted(Ledger(read_transfers(context.directory.transfers)).by_client)
    if not names:  # pooled training: all took part, and nothing that is counted travelled
        names = list(context.split.seen_sites)
    context.journal.transfers(
        broadcast_transfers(names, flat, stage=DELIVERY, what="state", round_index=None)
    )


def _save_site_norms(context: RunContext, norms: SiteStates) -> None:
    if norms:
        path = context.directory.lightweight_model.parent / NORMS_FILE
        write_atomically(path, lambda temporary: save_site_norms(norms, temporary))


def _copy_synthetic_set(context: RunContext) -> None:
    """The synthetic set and its picture belong to the run directory as well as to the store."""
    if synthesize.STAGE in context.stages:
        for path in sorted(context.stages[synthesize.STAGE].folder.glob("*.parquet")):
            copy_atomically(path, context.directory.synthetic / path.name)
    if measure_synthesis.STAGE in context.stages:
        name = measure_synthesis.PICTURE_FILE
        picture = context.stages[measure_synthesis.STAGE].folder / name
        copy_atomically(picture, context.directory.figures / name)
