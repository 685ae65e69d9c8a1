"""Stage 5 at the clients: the same bytes on a pool, and every byte that travels in the ledger."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.learning.foundation_adaptation import Adaptation
from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.dsfedmed.measure_synthesis import SynthesisChecks
from dsfedmed_ray.methods.dsfedmed.pipeline import DSFedMed
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.method import FOUNDATION_FILE, MethodResult
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.generator import EmbeddedGeneratorConfig
from dsfedmed_ray.models.litemedsam import LiteMedSAMConfig
from dsfedmed_ray.models.segmenter import State
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.runtime.engine import RuntimeConfig, Threads
from dsfedmed_ray.runtime.local_training import LocalTraining

SAMPLES, SIZE, EPOCHS, CLIENTS = 2, 32, 2, 5
METHOD = DSFedMed(
    federated=FederatedTraining(
        rounds=1, local=LocalTraining(training=SegmentationTraining()), validate_every=0
    ),
    samples_per_client=SAMPLES,
    adaptation=Adaptation(epochs=1),
    distillation=Distillation(epochs=EPOCHS, batch_size=2, mutual=False, placement="clients"),
    checks=SynthesisChecks(fit_steps=0),
)


@dataclass(frozen=True)
class Finished:
    """A run, the foundation model before stage 5, and that stage's lines of the ledger."""

    result: MethodResult
    adapted: State
    lines: list[dict[str, Any]]


Run = Callable[[Any], Finished]


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    toy_split: SplitFederation,
    toy_generator: EmbeddedGeneratorConfig,
    open_context: Callable[..., AbstractContextManager[RunContext]],
) -> Run:
    def run_(clients: Any) -> Finished:
        folder: Path = tmp_path_factory.mktemp(clients)
        with open_context(
            folder,
            RuntimeConfig(clients=clients, num_workers=2, threads=Threads(foundation=1)),
            toy_split,
            foundation=LiteMedSAMConfig(input_size=64, weights="random"),
            generator=toy_generator,
        ) as context:
            result = METHOD.run(context)
            adapted = load_file(context.stages["adapt_foundation"].folder / FOUNDATION_FILE)
            lines = list(read_json_lines(context.directory.transfers))
        distilling = [line for line in lines if line["stage"] == "distill_mutually"]
        return Finished(result, adapted, distilling)

    return run_


@pytest.fixture(scope="module")
def serial(run: Run) -> Finished:
    return run("serial")


def test_the_ledger_counts_what_travels(serial: Finished) -> None:
    """Two samples of 32 pixels a client: a pixel has 3 bytes of image, 1 of mask, 2 of target.

    Half of ten samples, five, are selected: at least three clients have one. What pickle adds is
    below 400 bytes. The federated model is a candidate too.
    """
    lines = serial.lines
    pixels = SAMPLES * SIZE * SIZE
    sent = Counter(line["what"] for line in lines)
    assert sent["synthetic_pairs"] == sent["targets"] == CLIENTS
    for what, expected in (("synthetic_pairs", 4 * pixels), ("targets", 2 * pixels)):
        for line in lines:
            if line["what"] == what:
                assert line["direction"] == "downlink"
                assert 0 < line["num_bytes"] - expected < 400
    assert sent["selection"] == sent["state"]
    assert EPOCHS * 3 <= sent["state"] <= EPOCHS * CLIENTS
    assert sent["candidate"] == (1 + EPOCHS) * CLIENTS


def test_the_foundation_model_stays_as_it_was_adapted(serial: Finished) -> None:
    assert serial.result.foundation is not None
    for name, value in serial.adapted.items():
        assert torch.equal(serial.result.foundation[name], value), name


@pytest.mark.ray
@pytest.mark.usefixtures("four_cpus")
def test_a_pool_gives_the_same_bytes(serial: Finished, run: Run) -> None:
    pooled = run("pool")
    for name, value in serial.result.lightweight.items():
        assert torch.equal(pooled.result.lightweight[name], value), name
    assert pooled.lines == serial.lines
