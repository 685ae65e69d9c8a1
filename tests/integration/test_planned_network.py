"""The plan of an nnU-Net: five numbers leave a client, and every placement plans the same."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.fedavg import FedAvg
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.method import MethodResult
from dsfedmed_ray.methods.plan_network import plan_network_on_pooled_pairs
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.nnunet import Fingerprint, NnUNetConfig
from dsfedmed_ray.models.segmenter import SegmenterConfig
from dsfedmed_ray.records import Sample
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.runtime.local_training import LocalTraining

METHOD = FedAvg(
    federated=FederatedTraining(
        rounds=1, local=LocalTraining(training=SegmentationTraining()), validate_every=1
    )
)
MODEL = NnUNetConfig(base_channels=4)
CLIENTS = 5


class WideImages:
    """A federation whose images are 16 of 32 rows high, as if padded to a square."""

    def __init__(self, federation: Any) -> None:
        self._federation = federation

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_federation":
            raise AttributeError(name)
        return getattr(self._federation, name)

    def load(self, site: str, index: int) -> Sample:
        sample = self._federation.load(site, index)
        image = np.maximum(sample.image, 1)
        image[:8] = image[24:] = 0
        return replace(sample, image=image)


@dataclass(frozen=True)
class Finished:
    result: MethodResult
    planned: SegmenterConfig
    lines: list[dict[str, Any]]
    keys: dict[str, str]


Run = Callable[[Any, SplitFederation], Finished]


@pytest.fixture(scope="module")
def wide_split(toy_split: SplitFederation) -> SplitFederation:
    return SplitFederation(WideImages(toy_split.federation), toy_split.split)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    open_context: Callable[..., AbstractContextManager[RunContext]],
) -> Run:
    def run_(clients: Any, split: SplitFederation) -> Finished:
        folder: Path = tmp_path_factory.mktemp(clients)
        runtime = RuntimeConfig(clients=clients, num_workers=2)
        with open_context(folder, runtime, split, lightweight=MODEL) as context:
            result = METHOD.run(context)
            return Finished(
                result,
                context.lightweight,
                list(read_json_lines(context.directory.transfers)),
                {name: stage.key for name, stage in context.stages.items()},
            )

    return run_


@pytest.fixture(scope="module")
def serial(run: Run, wide_split: SplitFederation) -> Finished:
    return run("serial", wide_split)


def test_five_numbers_leave_a_client_and_five_come_back(
    serial: Finished, wide_split: SplitFederation
) -> None:
    """40 bytes each; what pickle adds is below 400. Content of 16 x 32 pixels everywhere."""
    lines = [line for line in serial.lines if line["stage"] == "plan_network"]
    sent = Counter((line["direction"], line["what"]) for line in lines)
    assert sent == {("uplink", "fingerprint"): CLIENTS, ("downlink", "plan"): CLIENTS}
    assert all(40 <= line["num_bytes"] < 440 for line in lines)
    pairs = sum(wide_split.num_train(client) for client in range(CLIENTS))
    expected = Fingerprint(num_pairs=pairs, height_px=16, width_px=32)
    assert serial.planned == replace(MODEL, fingerprint=expected)


def test_the_plan_is_in_the_key_of_the_training(
    serial: Finished, run: Run, toy_split: SplitFederation
) -> None:
    """The same settings on whole images: 32 x 32 gives a deeper network, and another stage."""
    whole = run("serial", toy_split)
    assert whole.keys["train_federated"] != serial.keys["train_federated"]
    assert len(whole.result.lightweight) > len(serial.result.lightweight)


def test_pooled_pairs_give_the_same_plan(
    serial: Finished,
    wide_split: SplitFederation,
    tmp_path: Path,
    open_context: Callable[..., AbstractContextManager[RunContext]],
) -> None:
    runtime = RuntimeConfig(clients="serial")
    with open_context(tmp_path, runtime, wide_split, lightweight=MODEL) as context:
        plan_network_on_pooled_pairs(context)
        assert context.lightweight == serial.planned


@pytest.mark.ray
@pytest.mark.usefixtures("four_cpus")
def test_a_pool_plans_and_trains_the_same(
    serial: Finished, run: Run, wide_split: SplitFederation
) -> None:
    pooled = run("pool", wide_split)
    assert pooled.planned == serial.planned
    assert pooled.lines == serial.lines
    for name, value in serial.result.lightweight.items():
        assert torch.equal(pooled.result.lightweight[name], value), name
