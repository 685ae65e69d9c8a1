"""A finished run as reports read it, made by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dsfedmed_ray.run_directory import RunDirectory
from dsfedmed_ray.summary import Groups, Scores, Summary

MB = 2**20


def scores(dice: float) -> Scores:
    return Scores(dice=dice, iou=dice / (2 - dice), hd95_px=20 * (1 - dice))


def groups(north: float, south: float, unseen: float) -> Groups:
    return Groups(
        seen={
            "north": scores(north),
            "south": scores(south),
            "mean": scores((north + south) / 2),
        },
        unseen={"east": scores(unseen), "mean": scores(unseen)},
    )


@pytest.fixture
def make_summary() -> Callable[..., Summary]:
    """Builds a whole summary; the unseen site's Dice and the seed are chosen."""

    def make(method: str = "dsfedmed", *, unseen_dice: float = 0.75, seed: int = 0) -> Summary:
        return Summary(
            method=method,
            data="brain_sites",
            split={"unseen_site": "east"},
            seed=seed,
            metrics={
                "lightweight": groups(0.8, 0.9, unseen_dice),
                "foundation": groups(0.82, 0.88, 0.79),
            },
            communication={
                "total_bytes": 30 * MB,
                "per_client_bytes": 15.0 * MB,
                "by_stage": {"tune_generators": 10 * MB, "train_federated": 20 * MB},
                "by_direction": {"uplink": 20 * MB, "downlink": 10 * MB},
            },
            inference_ms={"lightweight": 2.5, "foundation": 200.0},
            wall_seconds={"total": 185.0, "tune_generators": 60.0, "train_federated": 125.0},
            generator={
                "tstr_ratio": 0.97,
                "tstr_ratio_min": 0.91,
                "mask_agreement": 0.84,
                "kid": 0.021,
                "memorisation": {"ratio": 1.12, "flag": False},
            },
            baselines={"fedavg": {"lightweight": groups(0.79, 0.91, 0.71)}},
            versions={"dsfedmed_ray": "0.1.0", "torch": "2.4.0"},
        )

    return make


@pytest.fixture
def finished_run(tmp_path: Path, make_summary: Callable[..., Summary]) -> RunDirectory:
    """A run directory with a summary, a configuration and the lines of two stages."""
    run = RunDirectory(tmp_path / "example")
    run.root.mkdir()
    run.summary.write_text(json.dumps(make_summary()))
    run.config.write_text("method: dsfedmed\nnote: 1 < 2 & 3\n")
    lines = []
    for stage, dice in (("train_federated", (0.5, 0.7, 0.72)), ("distill_mutually", (0.73, 0.75))):
        for index, value in enumerate(dice):
            values = {"validation_dice": value, "validation_dice/north": value - 0.02}
            lines.append(
                {"stage": stage, "index": index, "total": 5, "seconds": 1.5, "values": values}
            )
    run.rounds.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run
