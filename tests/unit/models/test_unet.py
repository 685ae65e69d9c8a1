"""The U-Net as a segmenter."""

import pytest
import torch

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.unet import UNetConfig


def num_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_default_is_small() -> None:
    """The design asks for 50-200 thousand parameters."""
    model = UNetConfig().build(num_structures=1, image_size=128, seed=0)
    assert 50_000 <= num_parameters(model) <= 200_000


@pytest.mark.parametrize("image_size", [32, 128])
def test_logits_have_the_images_size_and_a_channel_a_structure(image_size: int) -> None:
    model = UNetConfig(channels=(4, 8, 8)).build(num_structures=2, image_size=image_size, seed=0)
    assert model(torch.rand(3, 3, image_size, image_size)).shape == (3, 2, image_size, image_size)


def test_weights_are_a_function_of_the_seed() -> None:
    """The global generator is neither read nor moved."""
    config = UNetConfig(channels=(4, 8))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, again, other = (
        config.build(num_structures=1, image_size=32, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert any(
        not torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
    )


def test_batch_norm_buffers_travel() -> None:
    """A BatchNorm owns trainable parameters, so its running statistics are part of the state."""
    model = UNetConfig(channels=(4, 8), norm="batch").build(num_structures=1, image_size=32, seed=0)
    assert any(name.endswith("running_mean") for name in model.trainable_state())
    instance = UNetConfig(channels=(4, 8)).build(num_structures=1, image_size=32, seed=0)
    assert not any("running" in name for name in instance.trainable_state())


def test_yaml_lists_become_tuples() -> None:
    """Equal configurations hash equally, whether they came from YAML or from Python."""
    assert UNetConfig(channels=[4, 8]) == UNetConfig(channels=(4, 8))  # type: ignore[arg-type]
    assert hash(UNetConfig(channels=[4, 8])) == hash(UNetConfig(channels=(4, 8)))  # type: ignore[arg-type]


def test_image_size_that_cannot_be_halved() -> None:
    with pytest.raises(ConfigurationError, match=r"image_size 100 .* multiple of 8"):
        UNetConfig().build(num_structures=1, image_size=100, seed=0)


def test_values_outside_their_range() -> None:
    with pytest.raises(ConfigurationError, match=r"channels is \(8,\); give at least two"):
        UNetConfig(channels=(8,))
    with pytest.raises(ConfigurationError, match=r"lightweight\.num_res_units is -1"):
        UNetConfig(num_res_units=-1)
    with pytest.raises(ConfigurationError, match="allowed: instance, batch"):
        UNetConfig(norm="layer")  # type: ignore[arg-type]


def test_untrained_network_expects_the_foreground_prior() -> None:
    """With the network's own output at 0, every probability is the prior."""
    model = UNetConfig(channels=(4, 8), foreground_prior=0.2).build(
        num_structures=1, image_size=32, seed=0
    )
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.allclose(model(torch.rand(1, 3, 32, 32)).sigmoid(), torch.tensor(0.2))


def test_foreground_prior_outside_its_range() -> None:
    with pytest.raises(ConfigurationError, match=r"foreground_prior is 1.0; allowed: between"):
        UNetConfig(foreground_prior=1.0)


def test_narrow_convolutions_are_the_same_in_channels_last() -> None:
    """The layout of memory is the convolutions' alone: logits agree with a network without it."""
    config = UNetConfig(channels=(4, 8))
    fast = config.build(num_structures=3, image_size=32, seed=0)
    plain = config.build(num_structures=3, image_size=32, seed=0)
    for module in plain.modules():
        module._forward_pre_hooks.clear()
    assert any(module._forward_pre_hooks for module in fast.modules())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(fast(images), plain(images), atol=1e-5)
