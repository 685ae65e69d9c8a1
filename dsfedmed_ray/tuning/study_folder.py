"""Every path of a study, and whether a folder may be used for it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsfedmed_ray.errors import RunDirectoryError
from dsfedmed_ray.tuning.space import TuneSpace


@dataclass(frozen=True)
class StudyFolder:
    """The paths of a study."""

    root: Path

    @property
    def settings(self) -> Path:
        """What the study was started with."""
        return self.root / "study.json"

    @property
    def trials(self) -> Path:
        """One run directory and one log a trial."""
        return self.root / "trials"

    @property
    def ray_tune(self) -> Path:
        """Ray Tune's state, from which a killed sweep resumes."""
        return self.root / "ray_tune"

    @property
    def results(self) -> Path:
        """Every trial."""
        return self.root / "results.json"

    @property
    def best(self) -> Path:
        """The best trial's overrides."""
        return self.root / "best.yaml"

    @property
    def figures(self) -> Path:
        """Parallel coordinates and sensitivity."""
        return self.root / "figures"

    @property
    def resume_hint(self) -> str:
        """How to go on after an interruption, one line."""
        return f"go on with: the same command, --resume --study {self.root}"


def study_settings(space: TuneSpace, overrides: Sequence[str], num_trials: int) -> dict[str, Any]:
    """What a study is started with, and resumed with."""
    return {
        "space": space.source.read_text(encoding="utf-8"),
        "overrides": list(overrides),
        "num_trials": num_trials,
    }


def check_study(folder: StudyFolder, settings: dict[str, Any], resume: bool) -> None:
    """Checks a study's folder and makes nothing.

    Raises:
        RunDirectoryError: it exists and ``resume`` is not set, holds something else, or belongs to
            another study.
    """
    if not folder.settings.exists():
        if folder.root.exists() and any(folder.root.iterdir()):
            raise RunDirectoryError(f"{folder.root} is no study; choose another --study")
        return
    if not resume:
        raise RunDirectoryError(
            f"study {folder.root} exists; go on with it with --resume, or choose another --study"
        )
    if json.loads(folder.settings.read_text(encoding="utf-8")) != settings:
        raise RunDirectoryError(
            f"study {folder.root} was started with another space, other overrides or another "
            f"number of trials; they are in {folder.settings}"
        )
