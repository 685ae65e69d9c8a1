"""A run on this machine starts a Ray of its own, whatever else runs here."""

from typing import Any

import pytest
import ray

from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.runtime.ray_engine import _connect


def test_a_local_run_joins_no_cluster_that_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ray.init()`` without an address joins the newest cluster of the machine."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options))
    _connect(RuntimeConfig(num_cpus=3))
    assert asked["address"] == "local"
    assert asked["num_cpus"] == 3
