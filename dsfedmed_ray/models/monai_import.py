"""Imports MONAI without all of MONAI.

``import monai`` imports every one of its submodules, and those import every optional dependency
that happens to be installed: about 8 s and 400 MB a process, most of it ``transformers``,
``pandas``, ``torchvision`` and the like. A worker that needs one network needs none of them.

MONAI runs without its optional dependencies, so during the first import they are hidden from it,
and its walk over all submodules is left out; a submodule asked for later is imported then. What is
hidden stays unknown to MONAI in that process: a function that would use it raises MONAI's own
``OptionalImportError``. SciPy is not hidden, since MONAI's distances need it.
"""

import importlib
import pkgutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HIDDEN_PACKAGES = frozenset(
    {
        "PIL",
        "cucim",
        "cupy",
        "h5py",
        "huggingface_hub",
        "ignite",
        "itk",
        "matplotlib",
        "mlflow",
        "nibabel",
        "onnx",
        "onnxruntime",
        "optuna",
        "pandas",
        "pydicom",
        "requests",
        "skimage",
        "sklearn",
        "tensorboard",
        "tensorboardX",
        "torchvision",
        "transformers",
    }
)
"""Optional dependencies of MONAI 1.5 that are slow to import and that nothing used here needs."""


def monai_module(name: str) -> ModuleType:
    """Imports one module of MONAI, for example ``"monai.networks.nets.unet"``.

    The first import of MONAI in a process is the lean one; where MONAI is already imported, this
    is a plain import.
    """
    if "monai" not in sys.modules:
        with _lean_import():
            # MONAI's circular imports resolve when `apps` comes first, as in its own walk.
            importlib.import_module("monai.apps")
            return importlib.import_module(name)
    return importlib.import_module(name)


class _HideFromThisThread:
    """A finder that answers "not installed"; other threads import as ever."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if threading.get_ident() == self._thread and name.partition(".")[0] in HIDDEN_PACKAGES:
            raise ModuleNotFoundError(f"{name} is hidden from MONAI's import", name=name)
        return None


@contextmanager
def _lean_import() -> Iterator[None]:
    walk_packages = pkgutil.walk_packages

    def walk(path: Any = None, prefix: str = "", onerror: Any = None) -> Iterator[Any]:
        if prefix.startswith("monai."):
            return iter(())
        return walk_packages(path, prefix, onerror)

    finder = _HideFromThisThread()
    sys.meta_path.insert(0, finder)
    pkgutil.walk_packages = walk
    try:
        yield
    finally:
        pkgutil.walk_packages = walk_packages
        sys.meta_path.remove(finder)
