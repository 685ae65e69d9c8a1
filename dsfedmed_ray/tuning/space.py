"""A space file: what is tuned, by which metric, with which budget."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dsfedmed_ray.configuration import conf_dir
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.tuning.distributions import Distribution, read_distribution

METRICS = ("best_validation_dice", "validation_dice")
"""What a trial reports after each round or epoch: mean Dice over the seen sites' validation pairs,
the best so far (a stage's result is its best state) and the newest."""

Search = Literal["random", "optuna"]
Scheduler = Literal["fifo", "asha"]
SEARCHES = ("random", "optuna")
SCHEDULERS = ("fifo", "asha")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When a study ends.

    Attributes:
        num_trials: trials in all.
        seconds: wall time after which no trial goes on; None sets no limit.
    """

    num_trials: int = 16
    seconds: float | None = None

    def __post_init__(self) -> None:
        _require_whole("budget.num_trials", self.num_trials, 1)
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigurationError(f"budget.seconds is {self.seconds!r}; above 0, or null")


@dataclass(frozen=True, kw_only=True)
class Asha:
    """Asynchronous successive halving: bad trials stop early.

    Attributes:
        grace_epochs: rounds or epochs that every trial may do.
        reduction_factor: of the trials that reach a rung, one in so many goes on; the rungs stand
            at ``grace_epochs`` times its powers.
    """

    grace_epochs: int = 3
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        _require_whole("asha.grace_epochs", self.grace_epochs, 1)
        _require_whole("asha.reduction_factor", self.reduction_factor, 2)


@dataclass(frozen=True, kw_only=True)
class TrialPlacement:
    """What a trial is given.

    Attributes:
        overrides: of the runtime of every trial, before those of the command line; the shipped
            spaces run a trial in one process, so that several trials share a machine.
        num_cpus: logical CPUs of a trial's own process.
        num_gpus: GPUs of a trial in one process; ``auto`` is one where the cluster has any.
    """

    overrides: tuple[str, ...] = ("runtime.clients=serial",)
    num_cpus: float = 1
    num_gpus: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if not all(isinstance(item, str) and "=" in item for item in self.overrides):
            raise ConfigurationError(
                f"trial.overrides is {list(self.overrides)}; a list of KEY=VALUE is expected"
            )
        for item in self.overrides:
            if re.split(r"[.=]", item.lstrip("+~"), maxsplit=1)[0] != "runtime":
                raise ConfigurationError(
                    f"trial.overrides holds {item!r}; allowed: runtime keys, since a trial differs "
                    "from the baseline in its values alone; give others on the command line"
                )
        if not _is_number(self.num_cpus) or self.num_cpus <= 0:
            raise ConfigurationError(f"trial.num_cpus is {self.num_cpus!r}; allowed: above 0")
        if self.num_gpus != "auto" and not (_is_number(self.num_gpus) and self.num_gpus >= 0):
            raise ConfigurationError(
                f"trial.num_gpus is {self.num_gpus!r}; allowed: 0 or more, or auto"
            )


@dataclass(frozen=True, kw_only=True)
class TuneSpace:
    """A space file.

    Attributes:
        source: the file.
        stage: whose rounds or epochs report, for example ``distill_mutually``.
        metric: one of :data:`METRICS`, on seen sites.
        mode: ``max``; Dice is better when higher.
        search: ``random``, or Optuna's TPE.
        scheduler: ``fifo`` lets every trial end; ``asha`` stops the worse ones early.
        asha: its rungs.
        budget: when the study ends.
        trial: what a trial is given.
        space: distributions by override path.
    """

    source: Path
    stage: str
    metric: str
    mode: str
    search: Search = "random"
    scheduler: Scheduler = "fifo"
    asha: Asha = field(default_factory=Asha)
    budget: Budget = field(default_factory=Budget)
    trial: TrialPlacement = field(default_factory=TrialPlacement)
    space: dict[str, Distribution]

    def __post_init__(self) -> None:
        _require_known("search", self.search, SEARCHES)
        _require_known("scheduler", self.scheduler, SCHEDULERS)
        if self.mode != "max":
            raise ConfigurationError(
                f"mode is {self.mode!r}; Dice is better when higher: mode: max"
            )
        if {"unseen", "test"} & set(re.split(r"[^a-z]+", str(self.metric))):
            raise ConfigurationError(
                f"metric {self.metric!r} is no validation: nothing is ever tuned on the unseen "
                f"site or on test parts; allowed: {', '.join(METRICS)}"
            )
        if self.metric not in METRICS:
            raise ConfigurationError(
                f"metric {self.metric!r} is reported by no run; allowed: {', '.join(METRICS)}"
            )
        if self.search == "optuna" and self.grid_size > 1:
            raise ConfigurationError("search: optuna draws values and has no grid; write choice")

    @property
    def grid_size(self) -> int:
        """Points of the grid; 1 where nothing is a grid."""
        size = 1
        for distribution in self.space.values():
            size *= len(distribution.values) if distribution.kind == "grid" else 1
        return size


def find_space(path: Path) -> Path:
    """The file, or the one of this name that is shipped: ``tune_spaces/dsfedmed.yaml``."""
    shipped = conf_dir().parent / "tune_spaces" / path.name
    return shipped if not path.exists() and shipped.is_file() else path


def load_space(path: Path) -> TuneSpace:
    """Reads a space file.

    Raises:
        ConfigurationError: it cannot be read, or a key is missing, unknown or out of range; the
            message begins with the file.
    """
    content = _read(path)
    try:
        _check_keys(content, TuneSpace, "", left_out=("source",))
        for name in ("stage", "metric", "mode", "space"):
            if content.get(name) is None:
                raise ConfigurationError(f"{name} is missing")
        if not isinstance(content["space"], dict) or not content["space"]:
            raise ConfigurationError("space is empty; name at least one override path")
        content["space"] = {
            str(name): read_distribution(value, f"space.{name}")
            for name, value in content["space"].items()
        }
        for name, kind in (("asha", Asha), ("budget", Budget), ("trial", TrialPlacement)):
            if name in content:
                content[name] = _part(content[name], kind, name)
        return TuneSpace(source=path, **content)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        # OmegaConf's reader knows 1e-3 as a number; YAML 1.1 takes it for a text.
        content = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the space file {path}: {error.strerror or error}; "
            "tune_spaces/ holds examples"
        ) from error
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        lines = str(error).splitlines()
        raise ConfigurationError(f"{path} is not YAML: {'; '.join(lines[:2])}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} holds no keys; see tune_spaces/ for examples")
    return {str(key): value for key, value in content.items()}


def _part(content: Any, kind: type, name: str) -> Any:
    if not isinstance(content, dict):
        raise ConfigurationError(f"{name} is {content!r}; keys with values are expected")
    _check_keys(content, kind, f"{name}.")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in content.items()})


def _check_keys(
    content: dict[str, Any], kind: Any, prefix: str, left_out: tuple[str, ...] = ()
) -> None:
    allowed = [name for name in kind.__dataclass_fields__ if name not in left_out]
    for name in content:
        if name not in allowed:
            raise ConfigurationError(f"unknown key {prefix}{name}; allowed: {', '.join(allowed)}")


def _require_known(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")


def _require_whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(f"{name} is {value!r}; a whole number, at least {least}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
