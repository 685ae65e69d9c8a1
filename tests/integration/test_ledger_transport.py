"""The ledger against what really passes: between server and clients, and into Ray's store."""

import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.learning.foundation_adaptation import Adaptation
from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.dsfedmed.measure_synthesis import SynthesisChecks
from dsfedmed_ray.methods.dsfedmed.pipeline import DSFedMed
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.generator import EmbeddedGeneratorConfig
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.runtime.client import Hospital, HospitalBuilder
from dsfedmed_ray.runtime.client_pool import ClientPool
from dsfedmed_ray.runtime.engine import Engine, RuntimeConfig
from dsfedmed_ray.runtime.local_training import LocalTraining

CLIENTS, ROUNDS, EPOCHS = 5, 3, 2
FRAMING = 0.01
"""Share by which plain pickle may differ from the ledger's: nine bytes an array."""

Kind = tuple[str, str, str, str]
"""Client, stage, direction and name of the payload."""


@dataclass
class Wire(SilentProgress):
    """Between server and clients: all that passes is pickled, weighed and unpickled.

    Orders (which round, which part) are no payload. A state that a client got last in this stage,
    to the last bit, is not sent to it again.

    Attributes:
        num_bytes: by kind.
        num_payloads: by kind.
    """

    num_bytes: Counter[Kind] = field(default_factory=Counter)
    num_payloads: Counter[Kind] = field(default_factory=Counter)
    _stage: str = ""
    _held: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def stage(self, name: str, total: int) -> AbstractContextManager[object]:
        self._stage = name
        return super().stage(name, total)

    def down(self, client: str, method: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        judged_alone = method == "evaluate" and self._stage != "train_federated"
        what = "candidate" if judged_alone else "state"
        for argument in arguments:
            if isinstance(argument, FlatState):
                sent = pickle.dumps(argument, protocol=5)
                if self._held.get((client, self._stage)) != sent:
                    self._weigh(client, "downlink", what, sent)
                self._held[client, self._stage] = sent
        passed: tuple[Any, ...] = pickle.loads(pickle.dumps(arguments, protocol=5))
        return passed

    def up(self, client: str, method: str, answer: Any) -> Any:
        if method == "tune_generator":
            named = {"final_loss": "loss"}
            for part in fields(answer):
                value = getattr(answer, part.name)
                empty = value.size == 0 if isinstance(value, np.ndarray) else value == {}
                if not empty:
                    self._weigh_value(client, named.get(part.name, part.name), value)
        elif method == "fit":
            self._weigh_value(client, "state", (answer.state, answer.num_samples, answer.metrics))
        else:
            self._weigh_value(client, {"evaluate": "validation_dice"}[method], answer)
        return pickle.loads(pickle.dumps(answer, protocol=5))

    def _weigh_value(self, client: str, what: str, value: Any) -> None:
        self._weigh(client, "uplink", what, pickle.dumps(value, protocol=5))

    def _weigh(self, client: str, direction: str, what: str, sent: bytes) -> None:
        self.num_bytes[client, self._stage, direction, what] += len(sent)
        self.num_payloads[client, self._stage, direction, what] += 1


class HospitalAtTheWire:
    """A hospital whose every call and answer goes over the wire."""

    def __init__(self, hospital: Hospital, wire: Wire) -> None:
        self._hospital, self._wire = hospital, wire

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(client_id: int, *arguments: Any) -> Any:
            name = self._hospital.client_name(client_id)
            passed = self._wire.down(name, method, arguments)
            answer = getattr(self._hospital, method)(client_id, *passed)
            return self._wire.up(name, method, answer)

        return call


@dataclass(frozen=True, kw_only=True)
class BuilderAtTheWire(HospitalBuilder):
    wire: Wire

    def __call__(self) -> Any:
        return HospitalAtTheWire(Hospital(self), self.wire)


class EngineAtTheWire:
    """An engine in this process, as the run knows it."""

    def __init__(self, engine: Engine, wire: Wire) -> None:
        self._engine, self._wire = engine, wire
        self.start_foundation, self.generate = engine.start_foundation, engine.generate
        self.adapt = engine.adapt

    def start_pool(self, build: HospitalBuilder) -> ClientPool:
        settings = {part.name: getattr(build, part.name) for part in fields(build)}
        return self._engine.start_pool(BuilderAtTheWire(**settings, wire=self._wire))


def test_a_run_of_all_stages_sends_what_its_ledger_says(
    tmp_path: Path,
    toy_split: SplitFederation,
    toy_generator: EmbeddedGeneratorConfig,
    open_context: Callable[..., AbstractContextManager[RunContext]],
) -> None:
    """Three of five clients train in a round, all validate; by client, stage, direction and kind.

    Both must have the same kinds, the same number of payloads of each, and the same bytes up to
    FRAMING. Stages 2 and 4 send nothing. Every client tunes once, gets the mean of
    each round and, in stage 5, the federated model and a candidate an epoch. Stage 6 sends the
    distilled model and each round's mean to the three of a round, and three candidates to all.
    """
    wire = Wire()
    training = SegmentationTraining(batch_size=4)
    method = DSFedMed(
        federated=FederatedTraining(
            rounds=ROUNDS, clients_per_round=3, local=LocalTraining(training=training)
        ),
        samples_per_client=2,
        adaptation=Adaptation(epochs=1),
        distillation=Distillation(epochs=EPOCHS, batch_size=4),
        refinement_rounds=ROUNDS,
        checks=SynthesisChecks(fit_steps=0),
        control_rows=False,
    )
    with open_context(
        tmp_path,
        RuntimeConfig(clients="serial"),
        toy_split,
        generator=toy_generator,
        progress=wire,
        engine_of=lambda engine: EngineAtTheWire(engine, wire),
    ) as context:
        method.run(context)
    lines = list(read_json_lines(tmp_path / "run" / "transfers.jsonl"))
    kinds = [(x["client"], x["stage"], x["direction"], x["what"]) for x in lines]
    assert Counter(kinds) == wire.num_payloads
    counted: Counter[Kind] = Counter()
    for kind, line in zip(kinds, lines, strict=True):
        counted[kind] += line["num_bytes"]
    assert counted == pytest.approx(wire.num_bytes, rel=FRAMING)
    of_all = Counter(kind[1:] for kind in wire.num_payloads.elements())
    assert of_all["tune_generators", "uplink", "controlnet"] == CLIENTS
    assert of_all["train_federated", "uplink", "validation_dice"] == CLIENTS * ROUNDS
    assert of_all["train_federated", "downlink", "state"] == 3 + CLIENTS * ROUNDS
    assert of_all["distill_mutually", "downlink", "candidate"] == CLIENTS * (1 + EPOCHS)
    assert of_all["refine_federated", "downlink", "state"] == 3 * ROUNDS
    assert of_all["refine_federated", "downlink", "candidate"] == CLIENTS * 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    import ray

    ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20)
    yield ray
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.parametrize(
    "payload",
    [
        np.arange(100_000, dtype=np.float32),
        {f"layer{i}.weight": np.ones((32, 32, 3), np.float32) for i in range(24)},
        {"weight": torch.ones(300, 300), "bias": torch.ones(300)},
        b"x" * 300_000,
    ],
    ids=["flat state", "state by name", "tensors", "bytes"],
)
def test_size_in_the_object_store(cluster: Any, payload: Any) -> None:
    """Ray adds alignment and a header: under one percent of payloads of this size."""
    reference = cluster.put(payload)
    stored = cluster.experimental.get_object_locations([reference])[reference]["object_size"]
    assert payload_bytes(payload) == pytest.approx(stored, rel=0.01)
