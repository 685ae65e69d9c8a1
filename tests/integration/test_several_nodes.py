"""Three nodes of a real cluster: where actors go, what the server receives, a node that leaves."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.learning.aggregation import FixedPointSum, FlatState
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.fedavg import FederatedTraining, federated_stage
from dsfedmed_ray.methods.method import MODEL_FILE
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.runtime import client_pool
from dsfedmed_ray.runtime.client import Hospital, HospitalBuilder, LocalTraining
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.engine import Engine, RuntimeConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

SERIAL = RuntimeConfig(clients="serial")
ROUNDS = 3
STORE_BYTES = 100 * 2**20
TINY = [
    "experiment=smoke",
    "size=toy",
    "data.pairs_per_site=[6,5,6,5]",
    "foundation.weights=random",
    "foundation.input_size=64",
    "lightweight.channels=[4,8]",
    "lightweight.num_res_units=0",
    "runtime.threads.foundation=1",
    "generator.steps=2",
    "generator.num_inference_steps=2",
    "generator.images_per_job=2",
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and two nodes with a CPU each; one holds what stands for a GPU."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 20}
        head = {"include_dashboard": False, "_system_config": quick}
        size = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": STORE_BYTES}
        cluster = Cluster(initialize_head=True, head_node_args={**head, **size})
        cluster.add_node(resources={"accelerator": 1}, **size)
        cluster.add_node(**size)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        cluster.wait_for_nodes()
        # A node is known before its resources are; until then Ray places nothing on it.
        deadline = time.monotonic() + 60
        while ray.cluster_resources().get("CPU") != 3:
            assert time.monotonic() < deadline, ray.nodes()
            time.sleep(0.1)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@dataclass(frozen=True)
class Trained:
    """What must be equal: the final weights and every line, without its seconds."""

    weights: bytes
    rounds: list[dict[str, Any]]
    transfers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def train(toy_split: SplitFederation, open_context: Callable[..., Any]) -> Callable[..., Trained]:
    """Three rounds of a model with BatchNorm; optimisers outlive rounds."""
    schedule = FederatedTraining(
        rounds=ROUNDS,
        local=LocalTraining(training=SegmentationTraining(batch_size=3), optimizer_state="keep"),
        validate_every=0,
    )

    def run(folder: Path, runtime: RuntimeConfig, **surroundings: Any) -> Trained:
        model = UNetConfig(channels=(4, 8), num_res_units=1, norm="batch")
        opened = open_context(folder, runtime, toy_split, lightweight=model, **surroundings)
        with opened as context:
            stage = federated_stage(context, schedule)
            rounds = list(read_json_lines(context.directory.rounds))
            transfers = list(read_json_lines(context.directory.transfers))
        for line in rounds:
            line.pop("seconds")
        return Trained((stage.folder / MODEL_FILE).read_bytes(), rounds, transfers)

    return run


@pytest.fixture(scope="module")
def undisturbed(train: Callable[..., Trained], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("undisturbed"), SERIAL)


def nodes_of(kind: str) -> list[str]:
    """The nodes of the live actors of a class."""
    from ray._private import state

    return [
        actor["Address"]["NodeID"]
        for actor in state.actors().values()
        if actor["ActorClassName"] == kind and actor["State"] == "ALIVE"
    ]


class Watching(SilentProgress):
    """Looks where actors are at the end of every round and epoch."""

    def __init__(self) -> None:
        self.clients: list[str] = []
        self.foundation: set[str] = set()
        self.notes: list[str] = []

    def advance(self, record: ProgressRecord) -> None:
        if record.stage == "train_federated":
            self.clients = nodes_of("ClientWorker")
        self.foundation.update(nodes_of("FoundationServer"))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.usefixtures("cluster")
def test_clients_spread_and_the_server_receives_one_sum_a_node(
    train: Callable[..., Trained],
    undisturbed: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three workers on three nodes: five chunks of one client a round arrive as three sums."""
    merged = []

    class CountedSum(FixedPointSum):
        def merge(self, other: FixedPointSum) -> None:
            merged.append(other.total_weight)
            super().merge(other)

    monkeypatch.setattr(client_pool, "FixedPointSum", CountedSum)
    watching = Watching()
    runtime = RuntimeConfig(clients="pool", num_workers=3, chunk_size=1)
    assert train(tmp_path, runtime, progress=watching) == undisturbed
    assert len(watching.clients) == len(set(watching.clients)) == 3
    # The first round may be over before every node's worker has started.
    assert ROUNDS <= len(merged) <= 3 * ROUNDS
    assert sum(merged) == ROUNDS * (4 + 2 + 2 + 6 + 2)


@pytest.mark.usefixtures("cluster")
def test_the_whole_method_with_the_foundation_model_on_its_node(tmp_path: Path) -> None:
    """The bytes of a serial run; the foundation actor is where the accelerator is."""
    import ray

    from dsfedmed_ray.configuration import build_experiment, compose
    from dsfedmed_ray.experiment import run

    def finished(name: str, progress: SilentProgress, *more: str) -> bytes:
        folders = [f"run.dir={tmp_path / name}", f"store.dir={tmp_path / name}-store"]
        return run(
            build_experiment(compose([*TINY, *folders, *more])), progress
        ).lightweight_model.read_bytes()

    accelerators = {
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and "accelerator" in node["Resources"]
    }
    watching = Watching()
    demand = "+runtime.resources.foundation.resources.accelerator=1"
    distributed = finished("nodes", watching, "runtime.clients=actors", demand)
    assert watching.foundation == accelerators
    assert len(set(watching.clients)) > 1
    assert distributed == finished("serial", SilentProgress(), "runtime.clients=serial")


@pytest.mark.usefixtures("cluster")
def test_a_node_that_does_not_see_the_runs_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``/proc/self/cwd`` is another folder in each process, as any path is without a share."""
    import ray

    from dsfedmed_ray.cli import main
    from dsfedmed_ray.runtime.shared_folders import SharedFolders

    SharedFolders([tmp_path / "runs" / "first", tmp_path]).check()
    monkeypatch.chdir(tmp_path)
    folders = ["run.dir=/proc/self/cwd/run", f"store.dir={tmp_path / 'store'}"]
    assert main(["run", *TINY, "runtime.clients=actors", *folders]) == 2
    address = ray.nodes()[0]["NodeManagerAddress"]
    assert capsys.readouterr().err == (
        f"dsfedmed: error: node {address} does not see /proc/self/cwd/run, where this run keeps "
        "its files; give run.dir and store.dir in a folder that all nodes mount under one path "
        "(docs/clusters/README.md)\n"
    )
    assert list(tmp_path.iterdir()) == []


class HeldHospital(Hospital):
    """In round 1, the first client that is not on the head says where it is and waits."""

    def __init__(self, settings: "HeldBuilder") -> None:
        super().__init__(settings)
        self._held = settings

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        import ray

        node = ray.get_runtime_context().get_node_id()
        if order.round_index == 1 and node != self._held.head:
            try:
                mark = os.open(self._held.mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                pass
            else:
                os.write(mark, f"{node}\n".encode())
                os.close(mark)
                time.sleep(120)  # the node leaves before
        return super().fit(client_id, broadcast, order)


@dataclass(frozen=True, kw_only=True)
class HeldBuilder(HospitalBuilder):
    """Builds a :class:`HeldHospital`."""

    mark: Path
    head: str

    def __call__(self) -> HeldHospital:
        return HeldHospital(self)


@pytest.mark.chaos
def test_a_node_that_leaves_in_a_round_changes_no_byte(
    cluster: Any, train: Callable[..., Trained], undisturbed: Trained, tmp_path: Path
) -> None:
    """Its worker, its chunk and the sums that it held are lost; they are done again elsewhere."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    mark = tmp_path / "mark"
    left: list[str] = []

    class HoldingEngine:
        def __init__(self, engine: Engine) -> None:
            self._engine = engine

        def start_pool(self, build: HospitalBuilder) -> Any:
            fields = {name: getattr(build, name) for name in build.__dataclass_fields__}
            return self._engine.start_pool(
                HeldBuilder(**fields, mark=mark, head=cluster.head_node.node_id)
            )

    def remove_when_held() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            text = mark.read_text() if mark.exists() else ""
            if text.endswith("\n"):
                (node,) = [n for n in cluster.list_all_nodes() if n.node_id == text.strip()]
                left.append(node.node_id)
                cluster.remove_node(node, allow_graceful=False)
                return
            time.sleep(0.05)

    remover = threading.Thread(target=remove_when_held)
    remover.start()
    watching = Watching()
    runtime = RuntimeConfig(clients="pool", num_workers=3, chunk_size=1)
    trained = train(tmp_path, runtime, engine_of=HoldingEngine, progress=watching)
    remover.join()
    assert len(left) == 1
    assert any("was lost and replaced" in note for note in watching.notes)
    assert left[0] not in watching.clients
    assert trained == undisturbed
