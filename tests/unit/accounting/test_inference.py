"""Inference time, on a clock that the test moves."""

import pytest
import torch
from torch import Tensor, nn

from dsfedmed_ray.accounting.inference import measure_inference_ms


class Slow(nn.Module):
    """Each call takes the next of some given times."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seconds = seconds
        self.now = 0.0
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.now += self.seconds.pop(0)
        self.modes.append(self.training)
        return images[:, :1] * self.scale


def test_warmup_does_not_count() -> None:
    """Of 10, 20 and 30 ms the median is 20; the 95th percentile is 90 % of the way to 30."""
    model = Slow([9.0, 9.0, 0.010, 0.030, 0.020])
    measured = measure_inference_ms(model, 8, warmup=2, repeats=3, clock=lambda: model.now)
    assert measured.median_ms == pytest.approx(20)
    assert measured.p95_ms == pytest.approx(29)


@pytest.mark.parametrize(("seconds", "runs"), [(1.0, 8), (9.0, 7), (20.0, 5), (99.0, 5)])
def test_a_slow_model_is_timed_less_often(seconds: float, runs: int) -> None:
    """Of eight runs: all where they take a second, else those that began within a minute, or five.

    Of nine seconds the seventh begins after 54 s and the eighth would after 63.
    """
    model = Slow([seconds] * 8)
    measured = measure_inference_ms(model, 8, warmup=0, repeats=8, clock=lambda: model.now)
    assert measured.num_runs == runs


def test_the_model_is_timed_in_evaluation_mode_and_given_back_as_it_was() -> None:
    model = Slow([0.01] * 2).train()
    measure_inference_ms(model, 8, warmup=1, repeats=1)
    assert model.modes == [False, False]
    assert model.training


def test_no_repeats() -> None:
    with pytest.raises(ValueError, match="repeats is 0; at least 1"):
        measure_inference_ms(Slow([]), 8, repeats=0)
