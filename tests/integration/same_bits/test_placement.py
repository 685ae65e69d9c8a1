"""Federated averaging gives the same bytes wherever it runs, and whoever dies."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.runtime.client import Hospital, HospitalBuilder
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.engine import Engine, RuntimeConfig

PLAIN, EVERYTHING = "plain", "local norms, joins, a virtual clock"
ONE_WORKER = RuntimeConfig(clients="pool", num_workers=1, chunk_size=16)
TWO_WORKERS = RuntimeConfig(clients="pool", num_workers=2, chunk_size=1)
FOUR_WORKERS = RuntimeConfig(clients="pool", num_workers=4)
ACTORS = RuntimeConfig(clients="actors")
LONG = (pytest.mark.long, pytest.mark.slow)


def test_clients_differ_in_size(toy_split: SplitFederation) -> None:
    """60 % of 8, 4, 6, 10 and 4 pairs, in whole pairs."""
    assert [toy_split.num_train(client) for client in range(5)] == [4, 2, 2, 6, 2]


@pytest.mark.ray
@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    ("variant", "runtime"),
    [
        (PLAIN, ONE_WORKER),
        (PLAIN, TWO_WORKERS),
        (PLAIN, FOUR_WORKERS),
        (PLAIN, ACTORS),
        pytest.param(EVERYTHING, ONE_WORKER, marks=LONG),
        (EVERYTHING, TWO_WORKERS),
        pytest.param(EVERYTHING, FOUR_WORKERS, marks=LONG),
        pytest.param(EVERYTHING, ACTORS, marks=LONG),
    ],
    indirect=["variant"],
    ids=[
        f"{variant}-{placed}"
        for variant in (PLAIN, EVERYTHING)
        for placed in ("one worker, a chunk of all five", "two workers", "four workers", "actors")
    ],
)
def test_placement_changes_no_byte(
    runtime: RuntimeConfig, train: Callable[..., Any], undisturbed: Any, tmp_path: Path
) -> None:
    assert train(tmp_path, runtime) == undisturbed


@pytest.mark.ray
@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize("variant", [PLAIN], indirect=True)
@pytest.mark.parametrize(
    ("optimizer", "state"),
    [("adam", "reset"), ("adamw", "keep"), ("sgd", "keep")],
)
def test_placement_changes_no_byte_with_any_optimizer(
    optimizer: str, state: str, train: Callable[..., Any], tmp_path: Path
) -> None:
    """Adam that is kept is above. Two workers of which one serves three clients in one chunk."""
    schedule = {"rounds": 2, "training": {"optimizer": optimizer}, "optimizer_state": state}
    serial = train(tmp_path / "serial", RuntimeConfig(clients="serial"), **schedule)
    runtime = RuntimeConfig(clients="pool", num_workers=2, chunk_size=16)
    assert train(tmp_path / "pool", runtime, **schedule) == serial


Trouble = tuple[str, int, int]
DEATHS: tuple[Trouble, ...] = (("before", 0, 4), ("within", 1, 0), ("after", 1, 4))
FAULTS: tuple[Trouble, ...] = (("raises", 2, 0), ("nan", 2, 2))
"""Round and client; in time with dropout and a deadline as well. Client 0 does two steps."""


class TroubledHospital(Hospital):
    """In some rounds and with some clients, once each: ends its process, raises, or gives a NaN."""

    def __init__(self, settings: "TroubledBuilder") -> None:
        super().__init__(settings)
        self._marks = settings.marks

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        comes = partial(self._comes, order.round_index, client_id)
        if comes("before"):
            os._exit(9)
        if comes("within"):
            self._die_within_a_step()
        result = super().fit(client_id, broadcast, order)
        if comes("after"):
            os._exit(9)
        if comes("raises"):
            raise ValueError("the scanner is off")
        return replace(result, metrics={"loss": float("nan")}) if comes("nan") else result

    def _die_within_a_step(self) -> None:
        """Between the second forward and its backward pass: one step is done."""
        passes: list[None] = []

        def count(*_: Any) -> None:
            passes.append(None)
            if len(passes) == 2:
                os._exit(9)

        self._resident.model.register_forward_hook(count)

    def _comes(self, round_index: int, client_id: int, what: str) -> bool:
        mark = self._marks / f"{what}-{round_index}-{client_id}"
        if (what, round_index, client_id) not in DEATHS + FAULTS or mark.exists():
            return False
        mark.touch()
        return True


@dataclass(frozen=True, kw_only=True)
class TroubledBuilder(HospitalBuilder):
    """Builds a :class:`TroubledHospital`; ``marks`` remembers which troubles have been."""

    marks: Path

    def __call__(self) -> TroubledHospital:
        return TroubledHospital(self)


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    ("variant", "runtime"),
    [
        (PLAIN, RuntimeConfig(clients="pool", num_workers=2, chunk_size=2)),
        pytest.param(PLAIN, FOUR_WORKERS, marks=pytest.mark.long),
        (PLAIN, ACTORS),
        pytest.param(
            EVERYTHING,
            RuntimeConfig(clients="pool", num_workers=2, chunk_size=2),
            marks=pytest.mark.long,
        ),
    ],
    indirect=["variant"],
    ids=["two workers", "four workers", "actors", "two workers and everything else"],
)
def test_dying_workers_and_failing_clients_change_no_byte(
    runtime: RuntimeConfig, train: Callable[..., Any], undisturbed: Any, tmp_path: Path
) -> None:
    """Before training, within a step and after it, two in one round; and a client that raises."""
    import ray

    # Workers cannot import a test's module, so its classes travel whole.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    marks = tmp_path / "marks"
    marks.mkdir()

    class TroubledEngine:
        def __init__(self, engine: Engine) -> None:
            self._engine = engine

        def start_pool(self, build: HospitalBuilder) -> Any:
            fields = {name: getattr(build, name) for name in build.__dataclass_fields__}
            return self._engine.start_pool(TroubledBuilder(**fields, marks=marks))

    notes = NotingProgress()
    trained = train(tmp_path, runtime, engine_of=TroubledEngine, progress=notes)
    assert len(list(marks.iterdir())) == len(DEATHS + FAULTS)
    assert sum("was lost and replaced" in note for note in notes.notes) == len(DEATHS)
    assert sum(note.endswith("; retry") for note in notes.notes) == len(FAULTS)
    assert trained == undisturbed


class NotingProgress(SilentProgress):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)
