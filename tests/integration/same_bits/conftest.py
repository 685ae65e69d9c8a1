"""A small federated training that other tests place, stop and disturb in many ways."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.fedavg import federated_stage
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.local_norms import NORMS_FILE
from dsfedmed_ray.methods.method import MODEL_FILE
from dsfedmed_ray.models.unet import UNetConfig
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.runtime.availability import Availability
from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.runtime.failures import FailurePolicy
from dsfedmed_ray.runtime.local_training import LocalTraining

ROUNDS = 3


PLAIN, EVERYTHING = "plain", "local norms, joins, a virtual clock"
CLOCK = Availability(
    participation=0.7,
    samples_per_second=10.0,
    speed_spread=0.5,
    bytes_per_second=1e5,
    bandwidth_spread=0.5,
    deadline_seconds=0.46,
)


def schedule(
    variant: str = PLAIN, rounds: int = ROUNDS, optimizer_state: Any = "keep", **changes: Any
) -> FederatedTraining:
    """The optimisers' states outlive rounds, so that they count as well, unless they are reset."""
    plain = variant == PLAIN
    local = LocalTraining(
        training=SegmentationTraining(batch_size=3, **changes),
        optimizer_state=optimizer_state,
        norm_policy="average" if plain else "local",
    )
    return FederatedTraining(
        rounds=rounds,
        local=local,
        validate_every=0 if plain else 1,
        joins=None if plain else {"site_000002": 1},
    )


@dataclass(frozen=True)
class Trained:
    """What must be equal: the final weights and every line, without its seconds."""

    weights: bytes
    site_norms: bytes | None
    rounds: list[dict[str, Any]]
    transfers: list[dict[str, Any]]


@pytest.fixture(scope="module", params=[PLAIN, EVERYTHING])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def train(
    toy_split: SplitFederation, open_context: Callable[..., Any], variant: str
) -> Callable[..., Trained]:
    def run(
        folder: Path,
        runtime: RuntimeConfig,
        rounds: int = ROUNDS,
        training: dict[str, Any] | None = None,
        optimizer_state: str = "keep",
        **surroundings: Any,
    ) -> Trained:
        model = UNetConfig(channels=(4, 8), num_res_units=1, norm="batch")
        if variant == EVERYTHING:
            few = FailurePolicy(min_replies_fraction=0.2)
            runtime = replace(runtime, availability=CLOCK, failures=few)
        opened = open_context(folder, runtime, toy_split, lightweight=model, **surroundings)
        with opened as context:
            changes = {"optimizer_state": optimizer_state, **(training or {})}
            stage = federated_stage(context, schedule(variant, rounds, **changes))
            lines = list(read_json_lines(context.directory.rounds))
            transfers = list(read_json_lines(context.directory.transfers))
        for line in lines:
            line.pop("seconds")
        norms = stage.folder / NORMS_FILE
        return Trained(
            weights=(stage.folder / MODEL_FILE).read_bytes(),
            site_norms=norms.read_bytes() if norms.exists() else None,
            rounds=lines,
            transfers=transfers,
        )

    return run


@pytest.fixture(scope="module")
def undisturbed(
    train: Callable[..., Trained], variant: str, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    trained = train(tmp_path_factory.mktemp("undisturbed"), RuntimeConfig(clients="serial"))
    assert [line["index"] for line in trained.rounds] == [0, 1, 2]
    if variant == PLAIN:
        assert len(trained.transfers) == ROUNDS * 5 * 2
    else:
        check_trace(trained)
    return trained


def check_trace(trained: Trained) -> None:
    """Somebody is away, somebody late, somebody joins; the ledger and the clock know of it."""

    def clients_that_sent(what: str, index: int) -> set[str]:
        return {
            line["client"]
            for line in trained.transfers
            if (line["direction"], line["what"], line["round_index"]) == ("uplink", what, index)
        }

    values = [line["values"] for line in trained.rounds]
    assert [value["num_clients"] for value in values] == [4, 5, 5]
    assert sum(value["num_absent"] for value in values) > 0
    assert sum(value["num_late"] for value in values) > 0
    for index, value in enumerate(values):
        in_time = value["num_clients"] - value["num_absent"] - value["num_late"]
        assert value["num_replies"] == in_time
        sent = Counter(
            (line["direction"], line["what"])
            for line in trained.transfers
            if line["round_index"] == index
        )
        assert sent["uplink", "state"] == in_time
        # What was validated is what the next round starts from, and does not travel again.
        for_training = sent["downlink", "state"] - sent["uplink", "validation_dice"]
        lacking = len(
            clients_that_sent("state", index) - clients_that_sent("validation_dice", index - 1)
        )
        assert lacking <= for_training <= lacking + value["num_late"]
        assert (value["simulated_seconds"] == 0.46) == (value["num_late"] > 0)
        assert value["simulated_seconds"] <= 0.46
    after = [line for line in trained.transfers if line["what"] == "norm_state"]
    assert {line["direction"] for line in after} == {"uplink"}
    assert trained.site_norms is not None
