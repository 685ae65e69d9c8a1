"""The control without foundation model: which settings make it another row."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsfedmed_ray.learning.foundation_adaptation import Adaptation
from dsfedmed_ray.learning.learnability import Selection
from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.methods.dsfedmed.pipeline import DSFedMed
from dsfedmed_ray.methods.federated_training import FederatedTraining
from dsfedmed_ray.methods.run_context import StageOutput


def control_settings(**distillation: Any) -> Any:
    method = DSFedMed(
        federated=FederatedTraining(rounds=1),
        adaptation=Adaptation(),
        selection=Selection(),
        distillation=Distillation(**distillation),
    )
    context: Any = SimpleNamespace(stage=lambda name, *, settings, inputs, run: settings)
    stage = StageOutput(key="k", folder=Path(), seconds=0.0, reused=False)
    return method._train_on_synthetic(context, stage, stage)


@pytest.mark.parametrize(
    "change",
    [
        {"kl_weight": 1.0},
        {"temperature": 2.0},
        {"logit_limit": math.inf},
        {"mutual": False},
        {"foundation_every": 4},
        {"foundation_learning_rate": 1e-3},
    ],
)
def test_what_only_the_foundation_model_feels_keeps_the_row(change: dict[str, Any]) -> None:
    assert control_settings(**{"logit_limit": 4.0, **change}) == control_settings(logit_limit=4.0)


@pytest.mark.parametrize("change", [{"epochs": 3}, {"lightweight_learning_rate": 1e-2}])
def test_what_the_lightweight_model_feels_makes_another(change: dict[str, Any]) -> None:
    assert control_settings(**change) != control_settings()
