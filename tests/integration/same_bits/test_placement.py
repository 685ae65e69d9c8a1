"""Federated averaging gives the same bytes wherever it runs, and whoever dies."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.runtime.client import Hospital, HospitalBuilder
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.engine import Engine, RuntimeConfig


def test_clients_differ_in_size(toy_split: SplitFederation) -> None:
    """60 % of 8, 4, 6, 10 and 4 pairs, in whole pairs."""
    assert [toy_split.num_train(client) for client in range(5)] == [4, 2, 2, 6, 2]


@pytest.mark.ray
@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    "runtime",
    [
        RuntimeConfig(clients="pool", num_workers=1),
        RuntimeConfig(clients="pool", num_workers=2, chunk_size=1),
        RuntimeConfig(clients="pool", num_workers=4, chunk_size=16),
        RuntimeConfig(clients="actors"),
    ],
    ids=["one worker", "two workers, chunks of 1", "four workers, chunks of 16", "actors"],
)
def test_placement_changes_no_byte(
    runtime: RuntimeConfig, train: Callable[..., Any], undisturbed: Any, tmp_path: Path
) -> None:
    assert train(tmp_path, runtime) == undisturbed


class DyingHospital(Hospital):
    """Ends its process once for each of some rounds and clients, without a word."""

    def __init__(self, settings: "DyingBuilder") -> None:
        super().__init__(settings)
        self._dying = settings

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        self._die("before", client_id, order)
        result = super().fit(client_id, broadcast, order)
        self._die("after", client_id, order)
        return result

    def _die(self, when: str, client_id: int, order: FitOrder) -> None:
        if (when, order.round_index, client_id) not in self._dying.deaths:
            return
        mark = self._dying.marks / f"{when}-{order.round_index}-{client_id}"
        if not mark.exists():
            mark.touch()
            os._exit(9)


@dataclass(frozen=True, kw_only=True)
class DyingBuilder(HospitalBuilder):
    """Builds a :class:`DyingHospital`; ``marks`` remembers which deaths have been."""

    marks: Path
    deaths: tuple[tuple[str, int, int], ...]

    def __call__(self) -> DyingHospital:
        return DyingHospital(self)


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("four_cpus")
def test_dying_workers_change_no_byte(
    train: Callable[..., Any], undisturbed: Any, tmp_path: Path
) -> None:
    """Before training, after it, and two workers in the same round."""
    import ray

    # Workers cannot import a test's module, so its classes travel whole.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    deaths = (("before", 0, 4), ("after", 1, 0), ("after", 1, 4))
    marks = tmp_path / "marks"
    marks.mkdir()

    class DeadlyEngine:
        def __init__(self, engine: Engine) -> None:
            self._engine = engine

        def start_pool(self, build: HospitalBuilder) -> Any:
            fields = {name: getattr(build, name) for name in build.__dataclass_fields__}
            return self._engine.start_pool(DyingBuilder(**fields, marks=marks, deaths=deaths))

    runtime = RuntimeConfig(clients="pool", num_workers=2, chunk_size=2)
    notes = NotingProgress()
    trained = train(tmp_path, runtime, engine_of=DeadlyEngine, progress=notes)
    assert len(list(marks.iterdir())) == 3
    assert sum("was lost and replaced" in note for note in notes.notes) == 3
    assert trained == undisturbed


class NotingProgress(SilentProgress):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)
