"""The same arithmetic as torch's own step, without importing torch's compiler."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from dsfedmed_ray.learning.lean_optimizer import lean_optimizer, take_step

KINDS: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.01}),
    (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.01}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_steps_are_the_same_bits(kind: type[torch.optim.Optimizer], settings: Any) -> None:
    start = torch.randn(50, generator=torch.Generator().manual_seed(0))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    lean, plain = lean_optimizer(kind, [ours], **settings), kind([theirs], **settings)
    for _ in range(5):
        for parameter in (ours, theirs):
            parameter.grad = parameter.detach().sin()
        take_step(lean)
        plain.step()
        assert torch.equal(ours, theirs)
    lean.load_state_dict(plain.state_dict())
    lean.zero_grad(set_to_none=True)
    assert ours.grad is None


def test_training_does_not_import_the_compiler() -> None:
    """In a new process; here something may have imported it already."""
    code = """
import sys, torch
from dsfedmed_ray.learning.segmentation_training import *
from dsfedmed_ray.records import Sample
import numpy as np
image = np.zeros((4, 4, 3), np.uint8)
pairs = Pairs.of([Sample(sample_id="0", image=image, mask=image[:, :, :1])])
model = torch.nn.Conv2d(3, 1, 1)
for name in ("adam", "adamw", "sgd"):
    config = SegmentationTraining(optimizer=name)
    optimizer = make_optimizer(model, config)
    train_on_pairs(model, optimizer, pairs, config, torch.Generator())
    optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
