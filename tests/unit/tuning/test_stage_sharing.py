"""Which stages a trial shares with the untouched configuration: the stages' keys say it.

Nothing runs: every stage is found in a store that has them all and notes which were asked for.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dsfedmed_ray.configuration import build_experiment, compose
from dsfedmed_ray.methods.method import FOUNDATION_FILE, MODEL_FILE
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.run_directory import RunDirectory
from dsfedmed_ray.runtime.engine import SerialEngine
from dsfedmed_ray.runtime.journal import Journal
from dsfedmed_ray.runtime.stage_store import StageStore

ALL = {
    "tune_generators",
    "synthesize",
    "train_federated",
    "adapt_foundation",
    "distill_mutually",
    "train_on_synthetic",
    "refine_federated",
    "refine_fedavg",
    "refine_synthetic",
}
DISTILLED = {"distill_mutually", "refine_federated"}
AVERAGED = {"train_federated", "refine_fedavg"}
CONTROL = {"train_on_synthetic", "refine_synthetic"}


class FullStore(StageStore):
    """Has every stage; all are the same empty one."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: dict[str, str] = {}
        for name in ("rounds.jsonl", "transfers.jsonl"):
            (root / name).touch()
        for name in (MODEL_FILE, FOUNDATION_FILE):
            save_file({"weight": torch.zeros(1)}, root / name)

    def find(self, key: str) -> Path:
        self.asked[key.rpartition("-")[0]] = key
        return self.root


@pytest.fixture
def _folders(tmp_path: Path) -> None:
    for name in ("store", "run"):
        (tmp_path / name).mkdir()


def _keys(folder: Path, *overrides: str) -> dict[str, str]:
    """The key of each stage of a configuration."""
    experiment = build_experiment(compose(["experiment=smoke", *overrides]))
    directory, store = RunDirectory(folder / "run"), FullStore(folder / "store")
    context = RunContext(
        seed=experiment.seed,
        split=experiment.split.apply(experiment.data.build()),
        lightweight=experiment.lightweight,
        foundation=experiment.foundation,
        generator=experiment.generator,
        engine=SerialEngine(experiment.runtime, lambda _: None),
        directory=directory,
        store=store,
        journal=Journal(directory),
        progress=SilentProgress(),
        stop=StopRequest(),
    )
    experiment.method.run(context)
    return store.asked


@pytest.mark.usefixtures("_folders")
@pytest.mark.parametrize(
    ("override", "touched"),
    [
        ("method.distillation.temperature=2.0", DISTILLED),
        ("method.distillation.kl_weight=0.3", DISTILLED),
        ("method.selection.ratio=0.3", DISTILLED | CONTROL),
        ("method.selection.reliability_weight=0.1", DISTILLED),
        ("method.adaptation.learning_rate=1e-4", DISTILLED | {"adapt_foundation"}),
        ("method.samples_per_client=6", ALL - AVERAGED - {"tune_generators"}),
        ("generator.steps=50", ALL - AVERAGED),
        ("generator.num_inference_steps=7", ALL - AVERAGED - {"tune_generators"}),
        ("generator.variation=0.9", ALL - AVERAGED - {"tune_generators"}),
        (
            "method.federated.local.training.learning_rate=1e-3",
            AVERAGED | DISTILLED | CONTROL,
        ),
        ("method.refinement_rounds=2", {s for s in ALL if s.startswith("refine")}),
        ("seed=1", ALL),
        ("data.seed=1", ALL),
        ("runtime.clients=serial", set()),
    ],
)
def test_an_override_touches_its_stage_and_those_after_it(
    tmp_path: Path, override: str, touched: set[str]
) -> None:
    before, after = _keys(tmp_path), _keys(tmp_path, override)
    assert before.keys() == after.keys() == ALL
    assert {stage for stage in ALL if before[stage] != after[stage]} == touched
