"""MONAI's lean import, in processes of their own."""

import subprocess
import sys

import pytest


def run(code: str) -> str:
    """What a fresh process prints."""
    preface = "import sys\nfrom dsfedmed_ray.models.monai_import import monai_module\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", preface + code],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_a_network_without_the_rest_and_metrics_still_work() -> None:
    """Pixels 3 rows apart have Hausdorff distance 3, from MONAI through SciPy.

    What was hidden from MONAI is there for everybody else afterwards.
    """
    code = """
import pkgutil
walk_packages = pkgutil.walk_packages
monai_module("monai.networks.nets.unet").UNet
assert not {"transformers", "pandas", "torchvision", "matplotlib"} & sys.modules.keys()
assert pkgutil.walk_packages is walk_packages
assert [finder for finder in sys.meta_path if "Hide" in type(finder).__name__] == []
import PIL.Image
import torch
from monai.metrics import compute_hausdorff_distance
from monai.networks.nets import DynUNet
one, two = torch.zeros(2, 1, 1, 8, 8)
one[..., 2, 2], two[..., 5, 2] = 1, 1
print(compute_hausdorff_distance(one, two, include_background=True).item())
"""
    assert run(code) == "3.0"


@pytest.mark.slow
def test_after_a_whole_import_it_is_a_plain_one() -> None:
    code = """
import monai
print(monai_module("monai.networks.nets.unet") is sys.modules["monai.networks.nets.unet"])
"""
    assert run(code) == "True"
