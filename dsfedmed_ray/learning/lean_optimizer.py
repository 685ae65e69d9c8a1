"""torch's optimisers without torch's compiler, which they import on their first use.

``torch.optim`` marks its methods for ``torch.compile`` and imports ``torch._dynamo`` to do so, with
``sympy``, ``triton`` and more: over a second and over a hundred megabytes in every process that
trains. Nothing in this package is compiled. So the marks are set beforehand to what they come to
without a compiler, and a step is taken by the method below them, with the same arithmetic.
"""

import inspect
from typing import Any

import torch
from torch.optim import Optimizer

_MARKED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def lean_optimizer(kind: type[Optimizer], parameters: Any, **settings: Any) -> Optimizer:
    """An optimiser of a kind of ``torch.optim``; step it with :func:`take_step`."""
    for name in _MARKED:
        method = inspect.unwrap(getattr(Optimizer, name))
        if not hasattr(method, "__dynamo_disable"):
            setattr(method, "__dynamo_disable", method)
    return kind(parameters, **settings)


def take_step(optimizer: Optimizer) -> None:
    """One step from the gradients at hand; hooks of the optimiser are not called."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)
