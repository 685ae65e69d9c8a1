"""Every file of ``conf/experiment`` runs as it is shipped, at toy size; studies of scaling apart.

``test_scaling.py`` runs those.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsfedmed_ray.configuration import build_experiment, compose, conf_dir
from dsfedmed_ray.experiment import run
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.summary import read_summary

EXPERIMENTS = sorted(
    path.stem
    for path in (conf_dir() / "experiment").glob("*.yaml")
    if not path.stem.startswith("scale_")
)
TOY_RUN = [
    "size=toy",
    "method=fedavg",
    "schedule.local_steps=1",
    "lightweight.channels=[4,8]",
    "lightweight.num_res_units=0",
    "runtime.clients=serial",
]


def write_site(folder: Path, *, brightness: int) -> None:
    """Six parents of two tiles each: a square in the middle, 64 pixels wide in all."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(12):
        mask = np.zeros((64, 64), np.uint8)
        mask[16:48, 16:48] = 255
        image = np.where(mask > 0, brightness + number, 40).astype(np.uint8)
        name = f"slide{number // 2}_{number % 2}.png"
        Image.fromarray(image).save(folder / "images" / name)
        Image.fromarray(mask).save(folder / "masks" / name)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_runs(experiment: str, tmp_path: Path) -> None:
    """Both rounds are made; the experiment on real images takes the folder that it is given."""
    overrides = [f"experiment={experiment}", *TOY_RUN]
    unseen = "t2_a"
    if experiment == "nuclei":
        for site, brightness in (("dim", 90), ("bright", 200), ("unseen", 150)):
            write_site(tmp_path / "sites" / site, brightness=brightness)
        unseen = "unseen"
        overrides += [f"data.root={tmp_path / 'sites'}", f"split.unseen_site={unseen}"]
    else:
        overrides += ["data.pairs_per_site=[6,5,6,5]"]
    overrides += [f"run.dir={tmp_path / 'run'}", f"store.dir={tmp_path / 'store'}"]
    summary = read_summary(run(build_experiment(compose(overrides)), SilentProgress()).summary)
    assert set(summary["metrics"]["lightweight"]["unseen"]) == {unseen, "mean"}  # type: ignore[index]
    rounds = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    assert len(rounds) == 2
