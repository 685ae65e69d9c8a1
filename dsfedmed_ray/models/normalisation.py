"""Which entries of a state belong to normalisation: what FedBN leaves with each client."""

from collections.abc import Collection

from torch import nn


def norm_entries(model: nn.Module, names: Collection[str]) -> tuple[str, ...]:
    """The entries that a normalisation layer owns, in the order of ``names``.

    A layer normalises if its class is called so (``BatchNorm2d``, ``InstanceNorm2d``,
    ``GroupNorm``, ``LayerNorm``, SAM's ``LayerNorm2d``). Its scale and shift, its running mean
    and variance and its integer counter belong together. FedBN (Li et al. 2021) says this of batch
    normalisation; here every kind is treated alike.

    Args:
        model: its modules say who owns what.
        names: entries to choose from, for example those of ``trainable_state``.
    """
    owners = {
        prefix
        for prefix, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
    }
    return tuple(name for name in names if name.rpartition(".")[0] in owners)
