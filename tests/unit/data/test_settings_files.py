"""The YAML files build their classes, and say what the classes' defaults say."""

from dataclasses import fields
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).parents[3] / "conf"
FILES = [*sorted((CONF / "data").glob("*.yaml")), CONF / "split" / "leave_one_site_out.yaml"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_lists_every_setting_with_its_default(path: Path) -> None:
    """What a file reads from elsewhere is there: the run's seed, the data's cap."""
    loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(loaded, dict)
    loaded = loaded.get("data", loaded)  # a file for all packages says which part is whose
    given = {"root": "anywhere"} if "root" in loaded else {}
    elsewhere = {"seed": 0, "data": {"max_train_pairs": None}}
    whole = OmegaConf.create({**elsewhere, "file": {**loaded, **given}})
    target = get_class(loaded["_target_"])

    settings = instantiate(whole.file, _convert_="all")

    assert set(loaded) == {"_target_", *(field.name for field in fields(target))}
    assert settings == target(**given)
