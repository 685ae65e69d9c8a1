"""A study of real runs of a toy federation: what a trial reads, costs and leaves to repeat it."""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray import cli
from dsfedmed_ray.configuration import build_experiment, compose
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.progress import Progress
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.tuning.study import tune
from dsfedmed_ray.tuning.trial import train_overrides


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("four_cpus")
def test_a_real_sweep_costs_its_distillation(tmp_path: Path) -> None:
    """Two trials of temperatures, one at a time: each runs its last two stages alone.

    Nothing of the unseen site is read, nor of the seen sites' test parts. Beside its stages a trial
    costs little: at most 5 s where the worker has imported torch and the models for another one.
    The best trial's file repeats it to the same metric, without what the trial left in the store.
    """
    space = tmp_path / "space.yaml"
    space.write_text(
        "stage: distill_mutually\nmetric: best_validation_dice\nmode: max\n"
        "trial: {num_cpus: 4}\n"
        "space:\n  method.distillation.temperature: {loguniform: [0.5, 4.0]}\n"
    )
    toy = [
        "experiment=smoke",
        "size=toy",
        "foundation.weights=random",
        "foundation.input_size=64",
        "lightweight.channels=[4,8]",
        "lightweight.num_res_units=0",
        "runtime.threads.foundation=1",
        "data.max_train_pairs=4",
        "generator.steps=2",
        "generator.num_inference_steps=2",
        "runtime.clients=serial",
        f"store.dir={tmp_path / 'store'}",
    ]
    study, read = tmp_path / "study", tmp_path / "read.txt"

    def watched(overrides: Sequence[str], progress: Progress, stop: StopRequest) -> None:
        """Notes every pair that is read, in whichever process."""
        from dsfedmed_ray.data.splits import SplitFederation

        load = SplitFederation.load

        def noting(split: SplitFederation, site: str, index: int) -> Any:
            with read.open("a") as target:
                target.write(f"{site} {index}\n")
            return load(split, site, index)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SplitFederation, "load", noting)
            train_overrides(overrides, progress, stop)

    result = tune(space, toy, study=study, stream=io.StringIO(), num_trials=2, train=watched)
    assert "tune_generators" in result.baseline.stages_run
    assert [trial.stages_run for trial in result.trials] == [
        ("distill_mutually", "refine_federated")
    ] * 2
    assert [trial.status for trial in result.trials] == ["finished"] * 2
    assert min(trial.overhead_seconds for trial in result.trials) <= 5.0
    stages = [path.name.rpartition("-")[0] for path in (tmp_path / "store").glob("[a-z]*-*")]
    assert stages.count("tune_generators") == stages.count("adapt_foundation") == 1
    assert stages.count("distill_mutually") == 3

    experiment = build_experiment(compose(toy))
    split = experiment.split.apply(experiment.data.build())
    pairs = {(site, int(index)) for site, index in map(str.split, read.read_text().splitlines())}
    for site in split.seen_sites:
        mine = {index for name, index in pairs if name == site}
        assert mine >= set(split.indices(site, "validation"))
        assert mine.isdisjoint(split.indices(site, "test"))
    assert {site for site, _ in pairs} == set(split.seen_sites)

    for folder in (tmp_path / "store").glob("distill_mutually-*"):
        shutil.rmtree(folder)
    again = tmp_path / "again"
    assert cli.main(["run", "--from", str(study / "best.yaml"), f"run.dir={again}"]) == 0
    lines = [line for line in read_json_lines(again / "rounds.jsonl") if line["seconds"] > 0]
    dice = [line["values"] for line in lines if line["stage"] == "distill_mutually"]
    assert max(values["validation_dice"] for values in dice) == result.best.score
