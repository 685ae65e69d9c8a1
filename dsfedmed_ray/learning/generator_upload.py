"""What a client sends for its generator, once; saved as one safetensors file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsfedmed_ray.errors import CheckpointError
from dsfedmed_ray.records import MaskArray

Arrays = dict[str, NDArray[Any]]

_CONTROLNET, _LAYOUT = "controlnet.", "layout."
_REST = ("masks", "style", "final_loss")


@dataclass(frozen=True, kw_only=True)
class GeneratorUpload:
    """All that a client sends for its generator.

    Attributes:
        controlnet: the tuned parameters by name, ``float16`` or ``float32``.
        masks: ``uint8 [count, height, width, structures]``; count is 0 where the server draws.
        style: ``float32 [rows, size]``, region statistics and pose of each private image, once
            for each perturbed mask of it; size may be 0. Mask i belongs to row i.
        final_loss: mean denoising loss of the last tenth of the steps.
        layout: what all private images share, place by place (``models/layout.py``); empty where
            it is not used.
    """

    controlnet: Arrays
    masks: MaskArray
    style: NDArray[np.float32]
    final_loss: float
    layout: Arrays = field(default_factory=dict)

    def parts(self) -> dict[str, Any]:
        """What the ledger tells apart; parts without a byte are left out."""
        parts: dict[str, Any] = {"controlnet": self.controlnet}
        if self.masks.size:
            parts["masks"] = self.masks
        if self.style.size:
            parts["style"] = self.style
        if self.layout:
            parts["layout"] = self.layout
        return parts

    def arrays(self) -> Arrays:
        """Everything as named arrays."""
        named = {_CONTROLNET + name: value for name, value in self.controlnet.items()}
        named |= {_LAYOUT + name: value for name, value in self.layout.items()}
        rest = (self.masks, self.style, np.array([self.final_loss], np.float32))
        return named | dict(zip(_REST, rest, strict=True))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "GeneratorUpload":
        """The inverse of :meth:`arrays`.

        Raises:
            CheckpointError: a part is missing.
        """
        missing = sorted(set(_REST) - arrays.keys())
        if missing:
            raise CheckpointError(f"generator upload lacks {missing}; tune the generator again")
        return cls(
            controlnet=_under(_CONTROLNET, arrays),
            layout=_under(_LAYOUT, arrays),
            masks=arrays["masks"],
            style=arrays["style"],
            final_loss=float(arrays["final_loss"][0]),
        )

    def save(self, path: Path) -> None:
        """Writes one safetensors file.

        Raises:
            OSError: the disk is full.
        """
        from safetensors.numpy import save

        arrays = {name: np.ascontiguousarray(value) for name, value in self.arrays().items()}
        path.write_bytes(save(arrays))

    @classmethod
    def load(cls, path: Path) -> "GeneratorUpload":
        """Reads what :meth:`save` wrote.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"cannot read the generator upload {path}: {error}; tune the generator again"
            ) from error
        return cls.from_arrays(arrays)


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
