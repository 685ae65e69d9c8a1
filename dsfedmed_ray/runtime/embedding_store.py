"""Embeddings of the synthetic set, computed once and kept as a memory-mapped file.

A frozen encoder gives the same embedding every time, so it runs once an image: in the adaptation
stage, in every epoch of distillation and in later runs and trials the rows are read back.
"""

import hashlib
import json
from collections.abc import Sequence
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


def pool_fingerprint(samples: Sequence[Sample]) -> str:
    """Identifies a pool by its sample ids and images, in order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.sample_id.encode())
        digest.update(sample.image.tobytes())
    return digest.hexdigest()[:16]


def arithmetic_name(precision: Precision, device: torch.device, num_threads: int) -> str:
    """What decides an embedding's bits beside model and images; a folder of the store.

    A run on a GPU must not find what a CPU computed: the same run elsewhere would not. In float32,
    LiteMedSAM's embeddings differ between one thread and two in 2 % of their half-precision values.
    """
    kind = f"{device.type}-{num_threads}" if device.type == "cpu" else device.type
    return f"{kind}-{compute_dtype(precision, device)}-{torch.__version__}"


def stored_embeddings(
    model: FoundationSegmenter,
    samples: Sequence[Sample],
    folder: Path,
    *,
    batch_size: int,
    device: torch.device,
) -> "Embeddings":
    """Embeddings of a pool, from the folder or computed into it.

    Args:
        model: in evaluation mode on ``device``.
        samples: the pool.
        folder: ``store.dir/embeddings``, on a local disk.
        batch_size: images a forward pass.
        device: where the model is.

    Raises:
        CheckpointError: the file is not what its seal says.
    """
    name = f"{model.frozen_fingerprint()[:16]}-{pool_fingerprint(samples)}"
    path, seal = folder / f"{name}.npy", folder / f"{name}.json"
    if not seal.exists():
        rows = _computed(model, samples, batch_size, device)
        write_atomically(path, lambda temporary: _save(temporary, rows))
        write_json(seal, {"num_rows": len(rows), "shape": list(rows.shape[1:])})
    return Embeddings(_mapped(path, seal))


def _mapped(path: Path, seal: Path) -> NDArray[np.float16]:
    expected = json.loads(seal.read_text(encoding="utf-8"))
    try:
        rows: NDArray[np.float16] = np.load(path, mmap_mode="r")
        whole = list(rows.shape) == [expected["num_rows"], *expected["shape"]]
    except (OSError, ValueError, EOFError):
        whole = False
    if not whole:
        raise CheckpointError(
            f"the embeddings {path} are damaged or missing; delete it and {seal.name}, then they "
            "are computed again"
        )
    return rows


class Embeddings:
    """Rows of a memory-mapped half-precision array; indexing by a tensor reads them."""

    def __init__(self, rows: NDArray[np.float16]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(self._rows[indices.numpy()]))


def _computed(
    model: FoundationSegmenter, samples: Sequence[Sample], batch_size: int, device: torch.device
) -> NDArray[np.float16]:
    parts = []
    with torch.no_grad():
        for start in range(0, len(samples), batch_size):
            batch = samples[start : start + batch_size]
            images = np.stack([sample.image for sample in batch]).transpose(0, 3, 1, 2)
            inputs = torch.tensor(images, device=device).float() / 255.0
            parts.append(model.embed(inputs).to(torch.float16).cpu().numpy())
    return np.concatenate(parts)


def _save(path: Path, rows: NDArray[Any]) -> None:
    with path.open("wb") as target:  # np.save would append .npy to the temporary name
        np.save(target, rows)
