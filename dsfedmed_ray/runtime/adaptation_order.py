"""What workers need to adapt the foundation model together, and what they give. No Ray."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsfedmed_ray.learning.foundation_adaptation import Adaptation
from dsfedmed_ray.runtime.foundation_server import FoundationSettings

AdaptationSteps = Generator[tuple[float, dict[str, Any]], None, None]
"""Each epoch's mean loss and a server's ``progress_state()``; closing it ends the workers."""


@dataclass(frozen=True, kw_only=True)
class AdaptationOrder:
    """The epochs of stage 4 that are left.

    Attributes:
        settings: every worker holds a foundation server of its own, built from these.
        synthetic: folder of the synthetic set; every worker reads it and the kept embeddings.
        config: losses, batches and the number of workers.
        progress: where the workers start, from a server's ``progress_state()``.
        first_epoch: the epoch that comes next, from 0.
    """

    settings: FoundationSettings
    synthetic: Path
    config: Adaptation
    progress: dict[str, Any]
    first_epoch: int
