"""Embeddings of the synthetic set, computed once an image and kept as memory-mapped files.

A frozen encoder gives the same embedding every time, so it runs once an image: in the adaptation
stage, in every epoch of distillation and in later runs and trials the rows are read back. Of a set
that changed, only the new images are embedded.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsfedmed_ray.errors import CheckpointError
from dsfedmed_ray.models.precision import Precision, compute_dtype
from dsfedmed_ray.models.segmenter import FoundationSegmenter
from dsfedmed_ray.records import Sample
from dsfedmed_ray.run_directory import write_atomically, write_json


def image_key(image: NDArray[np.uint8]) -> str:
    """Identifies an image by its shape and pixels."""
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()[:32]


def arithmetic_name(precision: Precision, device: torch.device, num_threads: int) -> str:
    """What decides an embedding's bits beside model and images; a folder of the store.

    A run on a GPU must not find what a CPU computed: the same run elsewhere would not. In float32,
    LiteMedSAM's embeddings differ between one thread and two in 2 % of their half-precision values.
    """
    kind = f"{device.type}-{num_threads}" if device.type == "cpu" else device.type
    return f"{kind}-{compute_dtype(precision, device)}-{torch.__version__}"


def stored_embeddings(
    model: FoundationSegmenter, samples: Sequence[Sample], folder: Path, *, device: torch.device
) -> "Embeddings":
    """Embeddings of a pool; images that the folder does not know yet are computed into it.

    A file holds the rows that one pool was missing, its seal their images' keys.

    Args:
        model: in evaluation mode on ``device``.
        samples: the pool.
        folder: of this arithmetic in ``store.dir/embeddings``, on a local disk.
        device: where the model is.

    Raises:
        CheckpointError: a file is not what its seal says.
    """
    folder = folder / model.frozen_fingerprint()[:16]
    keys = [image_key(sample.image) for sample in samples]
    images = {key: sample.image for key, sample in zip(keys, samples, strict=True)}
    rows = _stored(folder, images.keys())
    missing = {key: image for key, image in images.items() if key not in rows}
    if missing:
        _store(folder, list(missing), _computed(model, list(missing.values()), device))
        rows = _stored(folder, images.keys())
    return Embeddings([rows[key] for key in keys])


def _stored(folder: Path, wanted: Collection[str]) -> dict[str, NDArray[np.float16]]:
    """Rows by key, of all files that hold one that is wanted."""
    found: dict[str, NDArray[np.float16]] = {}
    for seal in sorted(folder.glob("*.json")):
        content = json.loads(seal.read_text(encoding="utf-8"))
        if not set(wanted).isdisjoint(content["keys"]):
            rows = _mapped(seal.with_suffix(".npy"), [len(content["keys"]), *content["shape"]])
            found.update(zip(content["keys"], rows, strict=True))
    return found


def _store(folder: Path, keys: list[str], rows: NDArray[np.float16]) -> None:
    name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
    write_atomically(folder / f"{name}.npy", lambda temporary: _save(temporary, rows))
    write_json(folder / f"{name}.json", {"keys": keys, "shape": list(rows.shape[1:])})


def _mapped(path: Path, shape: list[int]) -> NDArray[np.float16]:
    try:
        rows: NDArray[np.float16] = np.load(path, mmap_mode="r")
        whole = list(rows.shape) == shape
    except (OSError, ValueError, EOFError):
        whole = False
    if not whole:
        raise CheckpointError(
            f"the embeddings {path} are damaged or missing; delete it and {path.stem}.json, then "
            "they are computed again"
        )
    return rows


class Embeddings:
    """Memory-mapped half-precision rows; indexing by a tensor reads them."""

    def __init__(self, rows: Sequence[NDArray[np.float16]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(np.stack([self._rows[index] for index in indices.tolist()]))


def _computed(
    model: FoundationSegmenter, images: Sequence[NDArray[np.uint8]], device: torch.device
) -> NDArray[np.float16]:
    """One image at a time: a row's bits must not depend on what else the pool was missing."""
    rows = []
    with torch.no_grad():
        for image in images:
            inputs = torch.tensor(image.transpose(2, 0, 1)[None], device=device).float() / 255.0
            rows.append(model.embed(inputs).to(torch.float16).cpu().numpy())
    return np.concatenate(rows)


def _save(path: Path, rows: NDArray[Any]) -> None:
    with path.open("wb") as target:  # np.save would append .npy to the temporary name
        np.save(target, rows)
