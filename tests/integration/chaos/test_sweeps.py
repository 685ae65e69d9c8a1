"""A sweep whose process is killed goes on: finished trials stay, the others end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsfedmed_ray import cli
from dsfedmed_ray.run_directory import read_json_lines

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow]

SPACE = """
stage: train_federated
metric: best_validation_dice
mode: max
budget: {num_trials: 3}
space:
  method.federated.local.training.learning_rate: {loguniform: [1.0e-3, 1.0e-2]}
"""
NUM_ROUNDS = 20
TOY = [
    "method=fedavg",
    "experiment=smoke",
    "size=toy",
    f"schedule.rounds={NUM_ROUNDS}",
    "schedule.local_steps=1",
    "data.pairs_per_site=[6,5,6,5]",
    "lightweight.channels=[4,8]",
    "lightweight.num_res_units=0",
    "runtime.clients=serial",
    "runtime.num_cpus=1",
    "runtime.object_store_bytes=134217728",
]


def saved_as_finished(study: Path) -> int:
    """Trials that Ray Tune's newest saved state holds as finished."""
    states = sorted((study / "ray_tune").glob("experiment_state-*.json"))
    return states[-1].read_text().count("TERMINATED") if states else 0


def lines_of(study: Path) -> dict[str, bytes]:
    """The lines of each trial's run directory."""
    return {path.parent.name: path.read_bytes() for path in study.glob("trials/*/rounds.jsonl")}


def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    """One trial at a time; SIGKILL as soon as one is saved as finished, in the next one."""
    study = tmp_path / "study"
    (tmp_path / "space.yaml").write_text(SPACE)
    arguments = ["tune", str(tmp_path / "space.yaml"), "--study", str(study), *TOY]
    arguments.append(f"store.dir={tmp_path / 'store'}")
    with subprocess.Popen(
        [sys.executable, "-m", "dsfedmed_ray.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        while saved_as_finished(study) == 0:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not (study / "results.json").exists()
    finished = {name: lines for name, lines in lines_of(study).items() if whole(lines)}
    assert 2 <= len(finished) <= 3  # the baseline is one of them
    assert cli.main([*arguments, "--resume"]) == 0
    results = json.loads((study / "results.json").read_text())
    assert [trial["status"] for trial in results["trials"]] == ["finished"] * 3
    after = lines_of(study)
    assert {name: after[name] for name in finished} == finished
    for name in ("baseline", *(trial["name"] for trial in results["trials"])):
        lines = read_json_lines(study / "trials" / name / "rounds.jsonl")
        assert [line["index"] for line in lines] == list(range(NUM_ROUNDS)), name


def whole(lines: bytes) -> bool:
    """Whether a trial had done all its rounds."""
    return lines.count(b"\n") == NUM_ROUNDS
