"""SAM with adapters."""

from typing import Any

import pytest
import torch

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.sam import Architecture, SamConfig
from dsfedmed_ray.models.sam_adapter import SamAdapterConfig
from dsfedmed_ray.models.sam_segmenter import SamSegmenter


def build(**options: Any) -> SamSegmenter:
    config = SamAdapterConfig(architecture="vit_toy", input_size=256, weights="random", **options)
    return config.build(num_structures=1, image_size=64, seed=0).eval()


def test_starts_as_the_sam_it_was_made_of() -> None:
    sam = SamConfig(architecture="vit_toy", input_size=256, weights="random")
    plain = sam.build(num_structures=1, image_size=64, seed=0).eval()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(build()(images), plain(images))


def test_adapters_and_decoder_train_and_travel() -> None:
    model = build()
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {name for name in trained if "adapter" in name or "mask_decoder" in name} == trained
    assert sum("adapter" in name for name in trained) == 4 * 2 * 4  # blocks, adapters, tensors
    assert trained <= model.trainable_state().keys()
    assert not any("attention." in name for name in model.trainable_state())


def test_blocks_before_the_first_adapter_are_embedded() -> None:
    """Nothing trainable is in embed(), and less is left to decode()."""
    for first, stage in ((0, 1), (2, 3)):
        model = build(first_adapted_block=first)
        assert model.first_trainable_stage == stage
        for index in range(stage):
            assert not any(p.requires_grad for p in model.image_encoder.stage_parameters(index))


@pytest.mark.parametrize(
    ("architecture", "num_trainable"), [("vit_b", 11_159_268), ("vit_l", 29_285_604)]
)
def test_sizes(architecture: Architecture, num_trainable: int) -> None:
    """Two adapters a block of 2 w (w / 4) + w / 4 + w, beside the decoder's 4,058,340.

    ViT-B: 24 x 295,872 + 4,058,340; ViT-L: 48 x 525,568 + 4,058,340. One offset travels along.
    """
    config = SamAdapterConfig(architecture=architecture, weights="random")
    with torch.device("meta"):
        model = config.build(num_structures=1, image_size=1024, seed=0)
    assert sum(v.numel() for v in model.trainable_state().values()) == num_trainable + 1


def test_bad_values() -> None:
    with pytest.raises(ConfigurationError, match=r"bottleneck_ratio is 0; it must be in \(0, 1\]"):
        SamAdapterConfig(bottleneck_ratio=0)
    with pytest.raises(ConfigurationError, match=r"first_adapted_block is 4; .* blocks 0 to 3"):
        build(first_adapted_block=4)
    with pytest.raises(ConfigurationError, match=r"input_size 100 "):
        SamAdapterConfig(input_size=100)
