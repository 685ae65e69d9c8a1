"""From files in ``conf/`` and overrides to an :class:`~dsfedmed_ray.experiment.Experiment`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsfedmed_ray.configuration_check import check_settings, check_value
from dsfedmed_ray.errors import ConfigurationError, DSFedMedError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dsfedmed_ray.experiment import Experiment


_SHAPING = (
    "data",
    "split",
    "foundation",
    "lightweight",
    "generator",
    "method",
    "runtime",
    "experiment",
    "size",
)
"""Groups whose files bring keys of their own."""


def conf_dir() -> Path:
    """The folder of configuration files: the checkout's, else the installed package's."""
    package = Path(__file__).parent
    for folder in (package.parent / "conf", package / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigurationError(f"no conf/config.yaml beside or inside {package}; install again")


def compose(overrides: Sequence[str]) -> "DictConfig":
    """Composes the configuration.

    Args:
        overrides: Hydra overrides, for example ``experiment=smoke`` or ``seed=1``.

    Raises:
        ConfigurationError: an override names what does not exist or cannot be read.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return _composed(overrides)
    except (HydraException, OmegaConfBaseException) as error:
        unknown = re.match(r"Could not override '([^']+)'", str(error))
        if unknown is None:
            raise ConfigurationError(_one_line(error)) from error
        raise ConfigurationError(_unknown_key(unknown[1], overrides)) from error
    except ValueError as error:  # a group set to a number or null
        raise ConfigurationError(f"{' '.join(overrides)}: {_one_line(error)}") from error


def _composed(overrides: Sequence[str]) -> "DictConfig":
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        return hydra_compose("config", overrides=list(overrides))


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    """Says which part of a key exists and what could follow it."""
    node: Any = _composed([item for item in overrides if _key(item) in _SHAPING])
    known: list[str] = []
    for name in key.split("."):
        if not hasattr(node, "keys") or name not in node:
            break
        node = node[name]
        known.append(name)
    keys = node if hasattr(node, "keys") else ()  # a value has none
    names = sorted(str(name) for name in keys if name != "_target_")
    where = ".".join(known) or "the configuration"
    return f"{key} is not a key; {where} has: {', '.join(names)}"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def build_experiment(config: "DictConfig") -> "Experiment":
    """Instantiates a composed configuration.

    Raises:
        ConfigurationError: a value is missing, unknown or out of range.
    """
    from omegaconf import OmegaConf

    from dsfedmed_ray.experiment import Experiment

    parts = ("data", "split", "foundation", "lightweight", "generator", "method", "runtime")
    values = _resolved(config)
    models = {**values, "foundation": _model_of(values["foundation"])}
    for key, hint in (("seed", int), ("resume", bool), ("store", dict)):
        check_value(key, values[key], hint)
    for part in parts:
        check_settings(part, models[part])
    _check_foundation_workers(values)
    run_dir = values["run"]["dir"]
    publish_to, remote = values["run"].get("publish"), values["store"].get("remote")
    for key, value in (("run.publish", publish_to), ("store.remote", remote)):
        check_value(key, value, str | None)
    # A resumed run is the same run, so ``resume`` does not belong to the configuration it keeps.
    kept = {key: value for key, value in values.items() if key != "resume"}
    return Experiment(
        seed=values["seed"],
        resume=values["resume"],
        run_dir=None if run_dir is None else Path(str(run_dir)),
        publish_to=publish_to,
        store_dir=Path(str(values["store"]["dir"])),
        store_remote=remote,
        resolved=OmegaConf.to_yaml(OmegaConf.create(kept)),
        **{part: _instantiated(models[part], part) for part in parts},
    )


def build_part(config: "DictConfig", part: str) -> Any:
    """Instantiates one part of a composed configuration that no run needs.

    Raises:
        ConfigurationError: a value is missing, unknown or out of range.
    """
    node = _resolved(config)[part]
    node = _model_of(node) if part == "foundation" else node
    check_settings(part, node)
    return _instantiated(node, part)


def _model_of(node: Any) -> Any:
    """The foundation model's own settings; on how many workers it adapts is no part of it."""
    if not isinstance(node, dict):
        return node
    return {key: value for key, value in node.items() if key != "num_workers"}


def _check_foundation_workers(values: dict[str, Any]) -> None:
    """One key says how many workers adapt the foundation model; two others follow it."""
    wanted = values["foundation"].get("num_workers", 1)
    adaptation = values["method"].get("adaptation")
    if adaptation is None and wanted > 1:
        raise ConfigurationError(
            f"foundation.num_workers is {wanted}, but method={values['method'].get('name')} adapts "
            "no foundation model; leave it at 1"
        )
    followers = {
        "runtime.foundation_workers": values["runtime"].get("foundation_workers", wanted),
        "method.adaptation.num_workers": (adaptation or {}).get("num_workers", wanted),
    }
    for key, value in followers.items():
        if value != wanted:
            raise ConfigurationError(
                f"{key} is {value} and foundation.num_workers {wanted}; set foundation.num_workers "
                "alone, the other follows it"
            )


def _resolved(config: "DictConfig") -> dict[str, Any]:
    """The configuration as plain values, interpolations replaced."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        missing = sorted(OmegaConf.missing_keys(config))
        values: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(_one_line(error)) from error
    if missing:
        raise ConfigurationError(
            f"{missing[0]} is required; set {missing[0]}=VALUE on the command line"
        )
    return dict(values)


def _instantiated(node: Any, part: str) -> Any:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        # Hydra wraps what a dataclass's check raised; the user should read the check's own words.
        cause = error.__cause__
        if isinstance(cause, DSFedMedError):
            raise cause from error
        raise ConfigurationError(f"{part}: {_one_line(cause or error)}") from error


def _one_line(error: BaseException) -> str:
    """A library's message without its line breaks and without the list of searched folders."""
    words = str(error).partition("Config search path:")[0].split()
    return " ".join(words) or type(error).__name__
