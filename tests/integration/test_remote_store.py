"""Machines that share finished stages through an object store."""

from pathlib import Path

import pytest

from dsfedmed_ray.configuration import build_experiment, compose
from dsfedmed_ray.errors import InterruptedRunError
from dsfedmed_ray.experiment import train
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord
from tests.conftest import BUCKET

pytestmark = pytest.mark.slow

TINY = [
    "experiment=smoke",
    "size=toy",
    "data.pairs_per_site=[6,5,6,5]",
    "foundation.weights=random",
    "foundation.input_size=64",
    "lightweight.channels=[4,8]",
    "lightweight.num_res_units=0",
    "generator.steps=2",
    "generator.num_inference_steps=2",
    "runtime.clients=serial",
    "runtime.threads.foundation=1",
]


class Stages(SilentProgress):
    """Keeps the names of stages that ran and of those that were taken, and which clients tuned.

    The run is asked to stop as soon as a client that nobody tuned before has done so, if
    ``stops_after_tuning``.
    """

    def __init__(self, *, stops_after_tuning: bool = False) -> None:
        self.ran: list[str] = []
        self.taken: list[str] = []
        self.tuned: list[bool] = []
        self.stop = StopRequest()
        self._stops_after_tuning = stops_after_tuning

    def advance(self, record: ProgressRecord) -> None:
        if record.stage == "tune_generators":
            self.tuned.append(record.seconds > 0)
            if self._stops_after_tuning and record.seconds > 0:
                self.stop.signal_number = 15

    def stage(self, name: str, total: int):  # type: ignore[no-untyped-def]
        self.ran.append(name)
        return super().stage(name, total)

    def note(self, text: str) -> None:
        if "taken from the stage store" in text:
            self.taken.append(text.partition(":")[0])


def test_another_machine_takes_every_stage_from_the_object_store(
    s3_server: str, tmp_path: Path
) -> None:
    """Its own store is empty; nothing runs there, bytes and lines are the first machine's.

    Embeddings do not travel. A third machine leaves another site out: two of its three clients
    have tuned before, and their uploads come from the object store as well.
    """
    address = f"s3://{BUCKET}/stages?endpoint_override={s3_server}&scheme=http"

    def machine(name: str, stages: Stages, *more: str) -> Stages:
        files = [f"run.dir={tmp_path / name / 'run'}", f"store.dir={tmp_path / name / 'store'}"]
        overrides = [*TINY, *files, f"store.remote='{address}'", *more]
        train(build_experiment(compose(overrides)), stages, stages.stop)
        return stages

    first, second = machine("first", Stages()), machine("second", Stages())
    assert first.taken == second.ran == []
    assert set(second.taken) == set(first.ran)
    for name in ("rounds.jsonl", "transfers.jsonl"):
        lines = [
            (tmp_path / machine / "run" / name).read_bytes() for machine in ("first", "second")
        ]
        assert lines[0] == lines[1] != b""
    stores = [tmp_path / name / "store" for name in ("first", "second")]
    shared = {path.name for path in stores[1].iterdir()} - {".locks"}
    assert {path.name for path in stores[0].iterdir()} - shared == {
        ".locks",
        "embeddings",
        *(path.name for path in stores[0].glob("client_upload-*")),
    }
    for path in (file for key in shared for file in (stores[0] / key).rglob("*.*")):
        assert (stores[1] / path.relative_to(stores[0])).read_bytes() == path.read_bytes()
    third = Stages(stops_after_tuning=True)
    with pytest.raises(InterruptedRunError):
        machine("third", third, "split.unseen_site=t1_a")
    assert third.tuned == [False, False, True]
