"""``dsfedmed scale`` from the command line, and what a round does in a large population."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray import cli
from dsfedmed_ray.data.brain_sites import BrainSites, BrainSitesConfig
from dsfedmed_ray.data.splits import LeaveOneSiteOut
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.fedavg import federated_stage
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.runtime.local_training import LocalTraining


class AskedSites(BrainSites):
    """Remembers which sites anybody asked about."""

    def __init__(self, config: BrainSitesConfig) -> None:
        super().__init__(config)
        self.asked: set[str] = set()

    def _position(self, site: str) -> int:
        self.asked.add(site)
        return super()._position(site)


def test_rounds_of_a_million_touch_the_drawn_clients_alone(
    open_context: Callable[..., Any], tmp_path: Path
) -> None:
    """Two rounds of 100 clients: no other site is asked for, and the ids span the population.

    A tenth of the ids is met by none of 200 draws with odds of 0.9**200, 7e-10.
    """
    config = BrainSitesConfig(
        image_size=32, num_sites=10**6, pairs_per_site=3, slices_per_subject=1
    )
    federation = AskedSites(config)
    schedule = FederatedTraining(
        rounds=2,
        clients_per_round=100,
        local=LocalTraining(training=SegmentationTraining(steps=1)),
        validate_every=0,
    )
    split = LeaveOneSiteOut().apply(federation)
    with open_context(tmp_path, RuntimeConfig(clients="serial"), split) as context:
        federated_stage(context, schedule)
        transfers = list(read_json_lines(context.directory.transfers))
    drawn = {line["client"] for line in transfers}
    assert federation.asked == drawn
    assert len(drawn) > 190
    assert {int(name.removeprefix("site_")) // 10**5 for name in drawn} == set(range(10))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_small_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two points of a population; the ledger counts a broadcast and a reply a client.

    On the virtual clock a client does eight steps of 1 to 3 samples at 2 a second.
    """
    root = tmp_path / "study"
    arguments = ["experiment=scale_population", "scaling.clients=[4]", "scaling.repeats=1"]
    arguments += ["scaling.populations=[10,1000000]", "scaling.workers=[1]", "schedule.rounds=2"]
    arguments += ["lightweight.channels=[4,8]", "lightweight.num_res_units=0"]
    arguments += ["runtime.object_store_bytes=134217728", "data.image_size=32"]
    arguments += ["runtime.availability.samples_per_second=2"]
    assert cli.main(["scale", *arguments, f"run.dir={root}"]) == 0
    captured = capsys.readouterr()
    assert "round 4/4  clients 4/4" in captured.err
    rows = json.loads((root / "results.json").read_text())["rows"]
    assert [row["point"]["population"] for row in rows] == [10, 1_000_000]
    for row in rows:
        assert row["seconds"]["mean"] > 0
        assert 8 / 2 <= row["simulated_seconds"]["mean"] <= 8 * 3 / 2
        assert row["round_bytes"] / 8 > 4 * 500  # 500 parameters at least, four bytes each
        for peak in ("driver_peak_rss_bytes", "worker_peak_rss_bytes"):
            assert row["memory"][peak] > 100 * 2**20
    assert sorted(path.name for path in root.iterdir()) == [
        "config.yaml",
        "figures",
        "measurements",
        "results.csv",
        "results.json",
    ]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_run_refuses_ends_the_study_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by the cluster, in the other process: no node has the resource."""
    arguments = ["experiment=scale_clients", "scaling.clients=[4]", "schedule.rounds=2"]
    arguments += ["+runtime.resources.client.resources.scanner=1", f"run.dir={tmp_path / 'study'}"]
    assert cli.main(["scale", *arguments]) == 2
    assert "clients ask for 2 scanner in all" in capsys.readouterr().err.splitlines()[-1]
