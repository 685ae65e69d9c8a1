"""Every file of ``conf/method`` is a row: it runs as it is shipped, with its models at toy size."""

from collections.abc import Callable
from typing import Any

import pytest

from dsfedmed_ray.configuration import build_experiment, compose, conf_dir
from dsfedmed_ray.experiment import run
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.run_directory import RunDirectory
from dsfedmed_ray.summary import read_summary

METHODS = {path.stem for path in (conf_dir() / "method").glob("*.yaml")}
PLAIN = {"centralized", "dsfedmed", "fedavg"}
"""Run, and looked at more closely, in ``test_pipeline.py``."""
TOY_MODEL = {
    "architecture": "vit_toy",
    "weights": "random",
    "input_size": 64,
    "base_channels": 4,
    "channels": [4, 8],
}
"""What makes a model small, for those that have it."""
TOY_RUN = [
    "experiment=smoke",
    "size=toy",
    "schedule.quality_steps=0",
    "data.pairs_per_site=[6,5,6,5]",
    "generator.steps=2",
    "generator.num_inference_steps=2",
    "generator.images_per_job=2",
    "runtime.clients=serial",
    "runtime.threads.foundation=1",
]


def toy_models(method: str) -> list[str]:
    """Overrides that shrink whichever models a row has."""
    config = compose([f"method={method}"])
    return [
        f"{role}.{key}={value}"
        for role in ("foundation", "lightweight")
        for key, value in TOY_MODEL.items()
        if key in config[role]
    ]


@pytest.fixture(scope="module")
def run_row(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunDirectory]:
    folder = tmp_path_factory.mktemp("rows")

    def started(method: str) -> RunDirectory:
        files = [f"run.dir={folder / method}", f"store.dir={folder / 'store'}"]
        overrides = [f"method={method}", *TOY_RUN, *toy_models(method), *files]
        return run(build_experiment(compose(overrides)), SilentProgress())

    return started


@pytest.mark.parametrize("method", sorted(METHODS - PLAIN))
def test_a_row_runs(method: str, run_row: Callable[[str], RunDirectory]) -> None:
    """Three seen sites and an unseen one are scored, and the row has its file's name."""
    summary = read_summary(run_row(method).summary)
    assert summary["method"] == method
    scores = summary["metrics"]["lightweight"]
    assert set(scores["unseen"]) == {"t2_a", "mean"}  # type: ignore[index]
    sent = summary["communication"]["by_stage"]
    assert ("train_federated" in sent) == (not method.startswith("centralized"))
    assert ("tune_generators" in sent) == method.startswith("dsfedmed")


@pytest.mark.parametrize(
    ("method", "foundation", "lightweight"),
    [
        ("fedsam", None, "sam_vit_b"),
        ("fedmsa", None, "msa_vit_b"),
        ("fedtinysam", None, "tinysam"),
        ("fedunet", None, "unet"),
        ("fednnunet", None, "nnunet"),
        ("centralized_sam", None, "sam_vit_b"),
        ("dsfedmed_sam_b_tinysam", "sam_vit_b", "tinysam"),
        ("dsfedmed_sam_b_unet", "sam_vit_b", "unet"),
        ("dsfedmed_msa_l_tinysam", "msa_vit_l", "tinysam"),
        ("dsfedmed_msa_l_unet", "msa_vit_l", "unet"),
    ],
)
def test_a_row_of_the_paper_names_its_models(
    method: str, foundation: str | None, lightweight: str
) -> None:
    """The paper's table and its four pairs; a model that the command line names still wins."""
    row = compose([f"method={method}"])
    same = [f"lightweight={lightweight}", *([f"foundation={foundation}"] if foundation else [])]
    chosen = compose(same)
    assert row.lightweight == chosen.lightweight
    assert row.foundation == chosen.foundation
    assert compose([f"method={method}", "lightweight=unet"]).lightweight.channels == [8, 16, 32, 64]


def test_pooled_sam_trains_as_fedsam_does() -> None:
    """A bound is one only with the same optimiser and loss."""
    local_epochs = "schedule.local_steps=null"
    pooled: Any = build_experiment(compose(["method=centralized_sam", local_epochs])).method
    federated: Any = build_experiment(compose(["method=fedsam", local_epochs])).method
    assert pooled.centralized.training == federated.federated.local.training
    assert pooled.centralized.rate_decay == federated.federated.local.rate_decay


def test_pooled_training_has_the_clients_rate_and_its_fall() -> None:
    """A bound with another schedule would say something about the schedule."""
    local_epochs = ["schedule.local_steps=null", "schedule.local_rate=0.03"]
    pooled: Any = build_experiment(compose(["method=centralized", *local_epochs])).method
    federated: Any = build_experiment(compose(["method=fedavg", *local_epochs])).method
    assert pooled.centralized.training == federated.federated.local.training
    assert pooled.centralized.rate_decay == federated.federated.local.rate_decay == 0.97
