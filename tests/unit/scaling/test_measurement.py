"""Which rounds count, and what a run is told."""

from pathlib import Path

import pytest

from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.scaling import measurement
from dsfedmed_ray.scaling.grid import GridPoint
from dsfedmed_ray.scaling.measurement import Measurement, RoundWatch, Task


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "_cluster_cpus", lambda: 2)


def record(
    index: int, *, validated: bool = False, stage: str = "train_federated"
) -> ProgressRecord:
    values = {"validation_dice": 0.5} if validated else {}
    return ProgressRecord(stage=stage, index=index, total=9, seconds=1.0, values=values)


def watched(*rounds: ProgressRecord) -> RoundWatch:
    """The clock is asked at the start and twice a round: ends at 1, 4, 9, ... minus looks of 1.

    Read 0 | 1, 2 | 4, 5 | 8, 9 | ...: rounds of 1, 2, 3, ... seconds.
    """
    times = [0]
    for number in range(1, len(rounds) + 1):
        times += [times[-1] + number, times[-1] + number + 1]
    ticks = iter(times)
    watch = RoundWatch(lambda _: None, clock=lambda: next(ticks))
    for item in rounds:
        watch.advance(item)
    return watch


def test_looking_at_memory_belongs_to_no_round() -> None:
    watch = watched(record(0), record(1), record(2))
    assert [seconds for _, seconds in watch.rounds] == [1, 2, 3]


def test_first_rounds_and_validated_rounds_do_not_count() -> None:
    watch = watched(record(0), record(1), record(2, validated=True))
    assert [item.index for item, _ in watch.counted(1)] == [1]


def test_where_every_round_validates_all_of_them_count() -> None:
    watch = watched(*(record(index, validated=True) for index in range(3)))
    assert [item.index for item, _ in watch.counted(1)] == [1, 2]


def test_other_stages_are_not_watched() -> None:
    watch = watched(record(0))
    watch.advance(record(1, stage="adapt_foundation"))
    assert len(watch.rounds) == 1


def test_peaks_are_the_largest_of_all_looks() -> None:
    watch = watched(record(0), record(1))
    assert watch.num_cpus == 2
    assert watch.peaks().driver_peak_rss_bytes == watch.looks[-1].driver_peak_rss_bytes


def test_a_repeat_has_its_own_seed_and_takes_nothing_from_others() -> None:
    point = GridPoint(clients=10, workers=2, gpus=0, population=None)
    task = Task(
        point=point,
        repeat=2,
        overrides=["run.dir=study", "resume=true"],
        seed=5,
        warmup_rounds=1,
        folder=Path("study/running"),
    )
    overrides = task.run_overrides()
    assert overrides[-6:] == [
        "seed=7",
        "resume=false",
        "store.remote=null",
        "run.publish=null",
        "run.dir=study/running/run",
        "store.dir=study/running/store",
    ]


def test_a_measurement_survives_its_file(measured: object) -> None:
    made: Measurement = measured(  # type: ignore[operator]
        10, 1, 2.0, dice=0.25, simulated_seconds=[3.0, 4.0]
    )
    assert Measurement.of(made.content()) == made
    assert made.median_seconds == 2.0
