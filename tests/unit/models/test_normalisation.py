"""Which entries FedBN leaves with a client."""

from torch import nn

from dsfedmed_ray.models.normalisation import norm_entries
from dsfedmed_ray.models.unet import UNetConfig


def test_entries_of_normalisation_layers() -> None:
    """Scale, shift, running statistics and the counter; nothing of the convolution."""
    model = nn.ModuleDict({"conv": nn.Conv2d(1, 2, 1), "norm": nn.BatchNorm2d(2)})
    assert norm_entries(model, model.state_dict()) == (
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    )
    assert norm_entries(model, ["conv.bias", "norm.bias"]) == ("norm.bias",)


def test_other_kinds() -> None:
    model = nn.ModuleDict(
        {"a": nn.GroupNorm(1, 2), "b": nn.LayerNorm(2), "c": nn.InstanceNorm2d(2)}
    )
    assert norm_entries(model, model.state_dict()) == ("a.weight", "a.bias", "b.weight", "b.bias")


def test_a_networks_convolutions_are_shared() -> None:
    model = UNetConfig(channels=(4, 8), norm="batch").build(num_structures=1, image_size=32, seed=0)
    kept = set(norm_entries(model, model.trainable_state()))
    for name, value in model.trainable_state().items():
        assert (name in kept) == (value.dim() < 2 and ("adn.N" in name))
