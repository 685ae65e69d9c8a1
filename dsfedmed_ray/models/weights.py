"""Pretrained weights from files: the one place where they are read and checked.

Nothing is unpickled but tensors (``weights_only=True``; safetensors holds nothing else).
"""

import hashlib
import pickle
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dsfedmed_ray.errors import CheckpointError
from dsfedmed_ray.models.segmenter import State, check_same_layout

WRAPPERS = ("model", "state_dict")
"""Keys under which training scripts store the state, beside optimisers and the like."""


def load_weights(path: Path | str, *, sha256: str | None) -> State:
    """Reads a state from a ``.safetensors`` or ``torch.save`` file.

    Args:
        path: the file.
        sha256: its expected hash, 64 hexadecimal digits; None accepts any file.

    Raises:
        CheckpointError: the file is missing, damaged, of another hash, or holds no state.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"no weights at {str(path)!r}; download them or mend the path")
    if sha256 is not None:
        _check_hash(path, sha256)
    return _as_state(_read(path), path)


def load_into(module: nn.Module, state: State, *, what: str, ignore: Collection[str] = ()) -> None:
    """Loads a state into a module; either everything fits or nothing is loaded.

    A module on the meta device has shapes alone: the state is held against them and let go.

    Args:
        module: where to.
        state: from :func:`load_weights`.
        what: the module's name in errors, for example ``"SAM ViT-B"``.
        ignore: keys that the file may hold and the module does without.

    Raises:
        CheckpointError: a key is missing or unknown, or a shape differs.
    """
    own = module.state_dict()
    given = {name: value for name, value in state.items() if name in own or name not in ignore}
    check_same_layout(own, given, what=what)
    if not any(value.is_meta for value in own.values()):
        module.load_state_dict(given)


def save_weights(state: State, path: Path) -> None:
    """Writes a state as ``.safetensors``.

    Raises:
        OSError: the disk is full; safetensors has an error of its own for it.
    """
    try:
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def file_sha256(path: Path) -> str:
    """The hash of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def with_known_weights(model: Any) -> Any:
    """A model's configuration that names its weights by content, as keys of stages must.

    Args:
        model: where it takes weights from a file and expects no hash, the file's is filled in.
    """
    path = getattr(model, "weights", None)
    if path in (None, "random", "package") or model.sha256 is not None:
        return model
    return replace(model, sha256=file_sha256(Path(path).expanduser()))


def _check_hash(path: Path, sha256: str) -> None:
    found = file_sha256(path)
    if found != sha256:
        raise CheckpointError(
            f"weights {path.name!r} have SHA-256 {found[:12]}..., expected {sha256[:12]}...; "
            "download them again, or set sha256 to null to use weights of your own"
        )


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        shapes_alone = torch.get_default_device().type == "meta"
        device = "meta" if shapes_alone else "cpu"
        return torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, BadZipFile, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"cannot read weights {path.name!r} ({reason}); "
            "give an undamaged .safetensors or torch.save file of tensors"
        ) from error


def _as_state(content: object, path: Path) -> State:
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(
            f"weights {path.name!r} hold no state; give a file with tensors by parameter name"
        )
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"weights {path.name!r} hold values that are no tensors; "
            "give a file with tensors by parameter name"
        )
    return dict(content)
