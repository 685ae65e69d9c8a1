"""Inference time of a model on this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class InferenceTime:
    """Milliseconds an image, one image at a time.

    Attributes:
        median_ms: half of the repeats were faster.
        p95_ms: 95 percent of the repeats were faster.
        num_runs: repeats that were timed.
    """

    median_ms: float
    p95_ms: float
    num_runs: int


def measure_inference_ms(
    model: nn.Module,
    image_size: int,
    *,
    device: torch.device | str = "cpu",
    warmup: int = 2,
    repeats: int = 10,
    min_repeats: int = 5,
    budget_seconds: float = 60.0,
    clock: Callable[[], float] = time.perf_counter,
) -> InferenceTime:
    """Times a model on one image at a time, from the image in memory to its logits.

    The device is synchronised before every look at the clock, so that queued work is counted. The
    model is put in evaluation mode, and afterwards back to where and how it was.

    Args:
        model: maps ``[1, 3, size, size]`` images in [0, 1] to logits.
        image_size: side of the image, pixels.
        device: where to time.
        warmup: runs before the first that counts.
        repeats: runs that count, at least one; fewer where they take long.
        min_repeats: runs that count in any case, where ``repeats`` allows as many.
        budget_seconds: after this time of counted runs and ``min_repeats``, no other one starts.
        clock: seconds.

    Raises:
        ValueError: ``repeats`` is below one.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; at least 1")
    target, home = torch.device(device), next(model.parameters()).device
    was_training = model.training
    model.to(target).eval()
    image = torch.rand(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    image = image.to(target)
    durations_ms: list[float] = []
    with torch.inference_mode():
        for _ in range(warmup):
            model(image)
        while len(durations_ms) < repeats:
            if len(durations_ms) >= min_repeats and sum(durations_ms) > 1000 * budget_seconds:
                break
            _synchronise(target)
            start = clock()
            model(image)
            _synchronise(target)
            durations_ms.append((clock() - start) * 1000)
    model.to(home).train(was_training)
    return InferenceTime(
        median_ms=float(np.median(durations_ms)),
        p95_ms=float(np.percentile(durations_ms, 95)),
        num_runs=len(durations_ms),
    )


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)
