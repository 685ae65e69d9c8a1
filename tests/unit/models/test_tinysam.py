"""TinySAM and MobileSAM."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dsfedmed_ray.errors import CheckpointError, ConfigurationError
from dsfedmed_ray.models.sam_segmenter import SamSegmenter
from dsfedmed_ray.models.tinysam import TinySamConfig


def build(**options: Any) -> SamSegmenter:
    config = TinySamConfig(**{"input_size": 64, "weights": "random", **options})
    return config.build(num_structures=1, image_size=64, seed=0)


@pytest.mark.parametrize(
    ("imagenet_head", "num_parameters"),
    # The head: a LayerNorm of 2 x 320 and a linear layer of 320 x 1,000 + 1,000 values.
    [(True, 10_130_092), (False, 10_130_092 - 640 - 321_000)],
)
def test_size_in_the_released_layout(imagenet_head: bool, num_parameters: int) -> None:
    config = TinySamConfig(weights="random", imagenet_head=imagenet_head)
    with torch.device("meta"):
        model = config.build(num_structures=1, image_size=1024, seed=0)
    assert sum(p.numel() for p in model.parameters()) == num_parameters


def test_all_of_it_travels_with_its_statistics() -> None:
    """Everything but the prompt encoder's fixed frequencies, which nobody trains."""
    model = build()
    left = model.state_dict().keys() - model.trainable_state().keys()
    assert left == {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"}


def test_statistics_move_unless_fixed() -> None:
    for fixed in (False, True):
        model = build(fixed_statistics=fixed).train()
        mean = model.image_encoder.patch_embed.seq[0].bn.running_mean
        before = mean.clone()
        model(torch.rand(2, 3, 64, 64)).sum().backward()
        assert torch.equal(mean, before) == fixed


def test_a_head_that_is_not_in_the_file(tmp_path: Path) -> None:
    torch.save(build().state_dict(), tmp_path / "small.pth")
    with pytest.raises(CheckpointError, match=r"does not fit TinySAM: 4 missing keys \['image_enc"):
        build(weights=str(tmp_path / "small.pth"), imagenet_head=True)


def test_the_same_decoder_twice_the_roles() -> None:
    """As a foundation model its encoder is frozen and embeds once."""
    model = build(trainable="decoder")
    assert model.embed(torch.rand(2, 3, 64, 64)).shape == (2, 256, 4, 4)
    owners = {name.split(".")[0] for name in model.trainable_state()}
    assert owners == {"mask_decoder", "logit_offset"}


def test_bad_values() -> None:
    with pytest.raises(CheckpointError, match=r"path of tinysam\.pth or mobile_sam\.pt, or random"):
        build(weights=None)
    with pytest.raises(ConfigurationError, match=r"input_size 100 .* multiple of 16 pixels"):
        build(input_size=100)
