"""What ``runtime.clients=auto`` means where there is little to share."""

from typing import Any

import pytest
import torch

from dsfedmed_ray.runtime import engine, ray_engine
from dsfedmed_ray.runtime.engine import RuntimeConfig, SerialEngine, open_engine
from dsfedmed_ray.runtime.failures import FailurePolicy


class RayWasAskedError(Exception):
    """Instead of starting it."""


@pytest.mark.parametrize(
    ("cpus", "gpus", "keys", "serial"),
    [
        (1, False, {}, True),
        (2, False, {}, False),
        (1, True, {}, False),
        (2, False, {"num_cpus": 1}, True),
        (1, False, {"num_cpus": 2}, False),
        (1, False, {"num_gpus": 1}, False),
        (1, False, {"clients": "actors"}, False),
        (1, False, {"num_workers": 2}, False),
        (1, False, {"foundation_workers": 2}, False),
        (1, False, {"address": "head:6379"}, False),
        (1, False, {"failures": FailurePolicy(client_timeout_seconds=9.0)}, False),
    ],
)
def test_auto_is_this_process_on_one_cpu_without_gpu(
    cpus: int, gpus: bool, keys: dict[str, Any], serial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a key asks for what only Ray has."""

    def ask(*_: Any, **__: Any) -> None:
        raise RayWasAskedError

    monkeypatch.setattr(engine, "cpus_here", lambda: cpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr(ray_engine, "open_ray_engine", ask)
    notes: list[str] = []
    if serial:
        with open_engine(RuntimeConfig(**keys), 3, notes.append) as opened:
            assert isinstance(opened, SerialEngine)
        assert notes == ["one CPU and no GPU: everything in this process, without Ray"]
    else:
        with pytest.raises(RayWasAskedError), open_engine(RuntimeConfig(**keys), 3, notes.append):
            pass
