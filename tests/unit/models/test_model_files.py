"""Every file in ``conf/foundation`` and ``conf/lightweight`` builds a model that learns a step."""

from pathlib import Path

import pytest
import torch

from dsfedmed_ray.configuration import build_part, compose, conf_dir
from dsfedmed_ray.models.segmenter import FoundationSegmenter, Segmenter

TOY = {"architecture": "vit_toy", "weights": "random", "input_size": 64, "base_channels": 4}
"""What makes a model small, for those that have it."""

FILES = [
    path.relative_to(conf_dir())
    for role in ("foundation", "lightweight")
    for path in sorted((conf_dir() / role).glob("*.yaml"))
]


def build_toy(path: Path) -> Segmenter:
    role, name = path.parent.name, path.stem
    config = compose([f"{role}={name}"])
    for key in config[role].keys() & TOY.keys():
        config[role][key] = TOY[key]
    return build_part(config, role).build(num_structures=2, image_size=64, seed=0)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_file(path: Path) -> None:
    model = build_toy(path)
    assert isinstance(model, FoundationSegmenter) or path.parent.name == "lightweight"
    logits = model.train()(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 2, 64, 64)
    logits.square().mean().backward()
    trained = [name for name, p in model.named_parameters() if p.grad is not None]
    assert trained
    assert set(trained) <= model.trainable_state().keys()
