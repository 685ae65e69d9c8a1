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
    ],
)
def test_wrong_values(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        GeneratorSettings(**wrong)


def test_client_masks_are_sent_once() -> None:
    assert GeneratorSettings(masks="client", masks_per_pair=4).masks_per_pair == 1
