"""From files in ``conf/`` and overrides to an :class:`~dsfedmed_ray.experiment.Experiment`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsfedmed_ray.errors import ConfigurationError, DSFedMedError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dsfedmed_ray.experiment import Experiment


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
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            return hydra_compose("config", overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(_one_line(error)) from error


def build_experiment(config: "DictConfig") -> "Experiment":
    """Instantiates a composed configuration.

    Raises:
        ConfigurationError: a value is missing, unknown or out of range.
    """
    from omegaconf import OmegaConf

    from dsfedmed_ray.experiment import Experiment

    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigurationError(
            f"{missing[0]} is required; set {missing[0]}=VALUE on the command line"
        )
    parts = ("data", "split", "foundation", "lightweight", "generator", "method", "runtime")
    resolved = _resolved(config)
    return Experiment(
        seed=config.seed,
        resume=config.resume,
        run_dir=None if config.run.dir is None else Path(config.run.dir),
        store_dir=Path(config.store.dir),
        resolved=resolved,
        **{part: _instantiated(config[part], part) for part in parts},
    )


def _resolved(config: "DictConfig") -> str:
    """The configuration as YAML; ``resume`` is left out, so that a resumed run is the same run."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        container: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(_one_line(error)) from error
    container.pop("resume")
    return OmegaConf.to_yaml(OmegaConf.create(container))


def _instantiated(node: Any, part: str) -> Any:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from omegaconf.errors import OmegaConfBaseException

    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        # Hydra wraps what a dataclass's check raised; the user should read the check's own words.
        cause = error.__cause__
        if isinstance(cause, DSFedMedError):
            raise cause from error
        raise ConfigurationError(f"{part}: {_one_line(cause or error)}") from error
    except OmegaConfBaseException as error:
        raise ConfigurationError(f"{part}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:2]) if lines else type(error).__name__
