"""Whether a space fits the configuration: its paths, its values and its metric.

Everything is composed and instantiated here, nothing runs: a wrong space costs seconds, not trials.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dsfedmed_ray.configuration import build_experiment, compose
from dsfedmed_ray.errors import ConfigurationError, UserError
from dsfedmed_ray.tuning.overrides import overrides_of, rounded
from dsfedmed_ray.tuning.space import TuneSpace

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dsfedmed_ray.experiment import Experiment

REPORTING_STAGES = {
    "distill_mutually": "method.distillation",
    "train_federated": "method.federated",
    "refine_federated": "method.refinement_rounds",
    "train_centralized": "method.centralized",
}
"""Stages that validate on the seen sites, and the settings that a method with this stage has."""

NOT_TUNED = {
    "data": "decides what is measured",
    "split": "decides what is measured",
    "seed": "is chance; the best seed is not a better setting",
    "run": "belongs to the study",
    "store": "belongs to the study",
    "resume": "belongs to the study",
    "runtime": "changes no result",
    "hydra": "is no setting of a run",
}


def check_space(space: TuneSpace, overrides: Sequence[str]) -> "Experiment":
    """Checks a space against the configuration that the overrides compose.

    Args:
        space: from a file.
        overrides: of the command line.

    Returns:
        The untouched experiment, as a trial without values would be.

    Raises:
        ConfigurationError: names the file, and the path or key that does not fit.
    """
    base = [*space.trial.overrides, *overrides]
    try:
        config = compose(base)
        _check_stage(space, config)
        experiment = build_experiment(config)
    except UserError as error:
        raise ConfigurationError(f"{space.source} with {_said(base)}: {error}") from error
    for path in space.space:
        _check_path(space, path, config)
    for path, value in _examples(space):
        try:
            changed = _changed(config, base, path, value)
            _check_stage(space, changed)
            build_experiment(changed)
        except UserError as error:
            raise ConfigurationError(f"{space.source}: space.{path}: {error}") from error
    return experiment


def _changed(config: "DictConfig", base: list[str], path: str, value: Any) -> "DictConfig":
    """The configuration with one value; composed anew only where the value chooses a file."""
    from omegaconf import DictConfig, OmegaConf

    if isinstance(OmegaConf.select(config, path), DictConfig):
        return compose([*base, *overrides_of({path: value})])
    changed: DictConfig = config.copy()
    OmegaConf.update(changed, path, rounded(value))
    return changed


def _said(overrides: list[str]) -> str:
    return " ".join(overrides) or "no overrides"


def _check_stage(space: TuneSpace, config: "DictConfig") -> None:
    from omegaconf import OmegaConf

    has = [stage for stage, path in REPORTING_STAGES.items() if OmegaConf.select(config, path)]
    if space.stage not in has:
        raise ConfigurationError(
            f"metric {space.metric} of the stage {space.stage!r} is reported by no run of the "
            f"method {config.method.name}; its stages that validate: {', '.join(has) or 'none'}"
        )
    every = OmegaConf.select(config, f"{REPORTING_STAGES[space.stage]}.validate_every")
    if every == 0:
        raise ConfigurationError(
            f"metric {space.metric} of the stage {space.stage!r} is reported by no run with "
            "validate_every=0; set schedule.validate_every to 1 or more"
        )


def _check_path(space: TuneSpace, path: str, config: "DictConfig") -> None:
    group = path.partition(".")[0]
    if group in NOT_TUNED:
        raise ConfigurationError(
            f"{space.source}: space.{path}: {group} {NOT_TUNED[group]} and cannot be tuned"
        )
    known = list(_paths(config))
    if path not in known:
        near = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ConfigurationError(
            f"{space.source}: space.{path}: the configuration has no such path{hint}"
        )


def _paths(config: "DictConfig", prefix: str = "") -> Iterator[str]:
    """Every path of the configuration, groups such as ``lightweight`` included."""
    from omegaconf import DictConfig, OmegaConf

    for key in config:
        path = f"{prefix}{key}"
        yield path
        if OmegaConf.is_missing(config, key):
            continue
        node: Any = config[key]
        if isinstance(node, DictConfig):
            yield from _paths(node, f"{path}.")


def _examples(space: TuneSpace) -> Iterator[tuple[str, Any]]:
    for path, distribution in space.space.items():
        for value in distribution.examples():
            yield path, value
