"""States that travel in half precision: fewer bytes, and the same ones everywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsfedmed_ray.errors import InterruptedRunError
from dsfedmed_ray.methods.resumable import StopRequest
from dsfedmed_ray.progress import SilentProgress
from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.runtime.engine import RuntimeConfig

Train = Callable[..., Any]


def serial(wire_dtype: Any = "float16") -> RuntimeConfig:
    return RuntimeConfig(clients="serial", wire_dtype=wire_dtype)


@pytest.mark.parametrize("variant", ["plain"], indirect=True)
@pytest.mark.parametrize("wire_dtype", ["float16", "bfloat16"])
def test_rounds_send_half_of_the_bytes(wire_dtype: Any, train: Train, tmp_path: Path) -> None:
    """Round 0 brings the state itself; every reply and every later broadcast is a difference."""
    whole = train(tmp_path / "whole", serial("float32"))
    half = train(tmp_path / "half", serial(wire_dtype))
    assert half.weights != whole.weights
    for before, after in zip(whole.transfers, half.transfers, strict=True):
        first = (after["round_index"], after["direction"]) == (0, "downlink")
        saved = (before["num_bytes"] - after["num_bytes"]) / before["num_bytes"]
        assert saved == 0 if first else 0.4 < saved < 0.5


@pytest.mark.ray
@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    "variant",
    ["plain", pytest.param("local norms, joins, a virtual clock", marks=pytest.mark.long)],
    indirect=True,
)
def test_placement_changes_no_byte(train: Train, tmp_path: Path) -> None:
    runtime = RuntimeConfig(clients="pool", num_workers=2, chunk_size=2, wire_dtype="float16")
    assert train(tmp_path / "pool", runtime) == train(tmp_path / "serial", serial())


class Stopping(SilentProgress):
    """Asks for a stop at the end of round 1, as a signal would."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def advance(self, record: ProgressRecord) -> None:
        if record.index == 1:
            self._stop.signal_number = 15


def test_stopping_changes_no_byte(train: Train, tmp_path: Path) -> None:
    """Who holds the last broadcast is part of a checkpoint."""
    stop = StopRequest()
    with pytest.raises(InterruptedRunError):
        train(tmp_path / "stopped", serial(), stop=stop, progress=Stopping(stop))
    assert train(tmp_path / "stopped", serial()) == train(tmp_path / "whole", serial())
