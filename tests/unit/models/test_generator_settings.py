"""Ranges of the generator's settings."""

from typing import Any

import pytest

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.generator_settings import GeneratorSettings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"masks": "theirs"}, "generator.masks='theirs' is unknown; choose one of client, pert"),
        ({"adapter": "ia3"}, "generator.adapter='ia3' is unknown; choose one of full, lora"),
        ({"steps": 0}, "generator.steps=0 is not a count; give an integer of at least 1"),
        ({"colour_jitter": 1.5}, r"colour_jitter=1.5 is out of range; give a number in \[0, 1\]"),
        ({"min_snr_gamma": 0.0}, "generator.min_snr_gamma=0.0 is out of range"),
        ({"learning_rate": 0.0}, "generator.learning_rate=0.0 is out of range"),
        ({"precision": "int8"}, "generator.precision='int8' is unknown"),
        ({"masks_per_pair": 0}, "generator.masks_per_pair=0 is not a count"),
        (
            {"masks": "client", "masks_per_pair": 4},
            "masks_per_pair=4 needs masks that differ, and generator.masks is 'client'; set",
        ),
        ({"masks": "procedural", "masks_per_pair": 2}, "generator.masks is 'procedural'"),
    ],
)
def test_wrong_values(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        GeneratorSettings(**wrong)


@pytest.mark.parametrize(
    ("masks", "given", "sent"),
    [("client", None, 1), ("perturbed", None, 2), ("perturbed", 5, 5), ("client", 1, 1)],
)
def test_masks_sent_for_a_pair(masks: Any, given: int | None, sent: int) -> None:
    assert GeneratorSettings(masks=masks, masks_per_pair=given).num_masks_per_pair == sent


def test_tuning_does_not_depend_on_how_is_sampled() -> None:
    """Steps of the sampler are forgotten, steps of the optimiser are not."""
    usual = GeneratorSettings()
    sampled = GeneratorSettings(num_inference_steps=3, images_per_job=2, grain=0.5, variation=0.9)
    assert sampled.for_tuning() == usual.for_tuning() == usual
    assert GeneratorSettings(steps=3).for_tuning() != usual
    assert GeneratorSettings(layout=False).for_tuning() != usual
