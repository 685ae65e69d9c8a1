"""What all models with SAM's decoder share, on an encoder of three tiny stages."""

import pytest
import torch
from torch import Tensor, nn

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.sam_segmenter import SamSegmenter, Scaling, Trainable, build_decoder


class TinyEncoder(nn.Module):
    """Three convolutions with BatchNorm; 16 pixels become a 4 x 4 grid."""

    num_stages = 3
    last_stage = 1
    grid_size = 4

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 8, 2), (8, 8, 2), (8, 256, 1))
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride, padding=1), nn.BatchNorm2d(b))
            for a, b, stride in sizes
        )

    def run_stages(self, x: Tensor, first: int, last: int) -> Tensor:
        for stage in self.stages[first:last]:
            x = stage(x)
        return x

    def stage_parameters(self, index: int) -> list[nn.Parameter]:
        return list(self.stages[index].parameters())


def tiny_segmenter(
    trainable: Trainable = "decoder",
    *,
    num_structures: int = 1,
    image_size: int = 16,
    scaling: Scaling = "minmax",
    fixed_statistics: bool = False,
) -> SamSegmenter:
    torch.manual_seed(0)
    prompt_encoder, mask_decoder = build_decoder(grid_size=4, input_size=16)
    return SamSegmenter(
        image_encoder=TinyEncoder(),
        prompt_encoder=prompt_encoder,
        mask_decoder=mask_decoder,
        num_structures=num_structures,
        image_size=image_size,
        input_size=16,
        scaling=scaling,
        trainable=trainable,
        fixed_statistics=fixed_statistics,
    )


def trainable_prefixes(model: SamSegmenter) -> set[str]:
    """Two components of the names of all trainable parameters, or one outside the encoder."""
    prefixes = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts = name.split(".")
            prefixes.add(".".join(parts[1:3]) if parts[0] == "image_encoder" else parts[0])
    return prefixes


@pytest.mark.parametrize(
    ("trainable", "parts"),
    [
        ("decoder", {"mask_decoder"}),
        ("neck", {"mask_decoder", "stages.2"}),
        ("last_stage", {"mask_decoder", "stages.2", "stages.1"}),
        ("all", {"mask_decoder", "prompt_encoder", "stages.0", "stages.1", "stages.2"}),
    ],
)
def test_what_trains(trainable: Trainable, parts: set[str]) -> None:
    model = tiny_segmenter(trainable)
    assert trainable_prefixes(model) == parts
    model(torch.rand(2, 3, 16, 16)).sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert all(model.get_parameter(name).requires_grad for name in with_gradient)


def test_everything_trainable_is_in_decode() -> None:
    model = tiny_segmenter("last_stage").eval()
    images = torch.rand(2, 3, 16, 16)
    embeddings = model.embed(images)
    assert not embeddings.requires_grad
    assert embeddings.shape == (2, 8, 8, 8)
    assert torch.equal(model.decode(embeddings), model(images))


def test_frozen_batch_norms_never_move() -> None:
    """After train(), only the norms of trainable stages update, unless they are fixed too."""
    images = torch.rand(4, 3, 16, 16)
    for fixed, moved in ((False, [False, True, True]), (True, [False, False, False])):
        model = tiny_segmenter("last_stage", fixed_statistics=fixed).train()
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        before = [norm.running_mean.clone() for norm in norms]
        model(images)
        assert [
            not torch.equal(n.running_mean, b) for n, b in zip(norms, before, strict=True)
        ] == moved


@pytest.mark.parametrize("num_structures", [1, 3])
def test_a_batch_decodes_as_one_at_a_time(num_structures: int) -> None:
    model = tiny_segmenter(num_structures=num_structures).eval()
    embeddings = model.embed(torch.rand(5, 3, 16, 16))
    together = model.decode(embeddings)
    alone = torch.cat([model.decode(embeddings[i : i + 1]) for i in range(5)])
    assert together.shape == (5, num_structures, 16, 16)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_structures_take_mask_tokens_in_order() -> None:
    """The first structure of two is the only one of one."""
    one, two = tiny_segmenter().eval(), tiny_segmenter(num_structures=2).eval()
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(two(images)[:, :1], one(images))


def test_images_of_another_size_are_resized_and_logits_come_back_at_theirs() -> None:
    model = tiny_segmenter(image_size=40).eval()
    assert model(torch.rand(1, 3, 40, 40)).shape == (1, 1, 40, 40)


def test_scaling() -> None:
    """Min-max ignores gain and offset; ImageNet's mean colour maps to 0."""
    images = torch.rand(2, 3, 16, 16)
    model = tiny_segmenter().eval()
    torch.testing.assert_close(model(images), model(images * 0.5 + 0.2), atol=1e-4, rtol=0)
    mean = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1) / 255
    scaled = tiny_segmenter(scaling="imagenet")._scaled(mean.expand(1, 3, 16, 16))
    torch.testing.assert_close(scaled, torch.zeros(1, 3, 16, 16), atol=1e-6, rtol=0)


def test_half_precision_embeddings_are_accepted() -> None:
    """Stored embeddings are float16; the decoder works in its own precision."""
    model = tiny_segmenter().eval()
    embeddings = model.embed(torch.rand(1, 3, 16, 16))
    assert model.decode(embeddings.half()).dtype == torch.float32


@pytest.mark.parametrize("image_size", [8, 16, 40])
def test_logits_are_float32_under_autocast(image_size: int) -> None:
    """Whether they are shrunk, kept or enlarged; probabilities are those of full precision."""
    model, images = tiny_segmenter(image_size=image_size).eval(), torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.sigmoid(), model(images).sigmoid(), atol=0.02, rtol=0)


def test_fingerprint_is_of_the_frozen_part_alone() -> None:
    model = tiny_segmenter()
    before = model.frozen_fingerprint()
    assert tiny_segmenter().frozen_fingerprint() == before
    with torch.no_grad():
        next(model.mask_decoder.parameters()).add_(1)
    assert model.frozen_fingerprint() == before
    with torch.no_grad():
        model.image_encoder.stages[0][1].running_mean.add_(1)
    assert model.frozen_fingerprint() != before
    assert tiny_segmenter("neck").frozen_fingerprint() != before
    assert tiny_segmenter(scaling="imagenet").frozen_fingerprint() != before


def test_bad_values() -> None:
    with pytest.raises(ConfigurationError, match="5 structures, but SAM's decoder has 4 mask"):
        tiny_segmenter(num_structures=5)
    with pytest.raises(ConfigurationError, match="trainable is 'head'; allowed: decoder, neck"):
        tiny_segmenter("head")  # type: ignore[arg-type]


def test_positions_are_computed_once_and_again_for_other_weights() -> None:
    """SAM's own, in float32 whatever the decoder computes in."""
    model = tiny_segmenter().eval()
    embeddings = torch.rand(1, 256, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        model.decode(embeddings)
    first = model._positions()
    assert torch.equal(first, model.prompt_encoder.get_dense_pe())  # type: ignore[operator]
    assert model._positions() is first
    state = model.state_dict()
    name = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    model.load_state_dict(state | {name: 2 * state[name]})
    assert torch.equal(model._positions(), model.prompt_encoder.get_dense_pe())  # type: ignore[operator]
    assert not torch.equal(model._positions(), first)
