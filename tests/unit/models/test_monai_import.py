"""MONAI's lean import, in processes of their own."""

import subprocess
import sys

import pytest

LEAN = """
import sys
from dsfedmed_ray.models.monai_import import monai_module
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LEAN + code],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_unneeded_packages_are_not_imported_and_metrics_still_work() -> None:
    """A 1-pixel and a 3-pixel-distant mask: Hausdorff distance 3, from MONAI through SciPy."""
    code = """
monai_module("monai.networks.nets.unet").UNet
assert not {"transformers", "pandas", "torchvision", "matplotlib"} & sys.modules.keys()
import torch
from monai.metrics import compute_hausdorff_distance
from monai.networks.nets import DynUNet
one, two = torch.zeros(2, 1, 1, 8, 8)
one[..., 2, 2], two[..., 5, 2] = 1, 1
print(compute_hausdorff_distance(one, two, include_background=True).item())
"""
    assert run(code) == "3.0"


def test_hidden_packages_come_back() -> None:
    """Only MONAI's import does not see them."""
    code = """
import pkgutil
walk = pkgutil.walk_packages
monai_module("monai.networks.nets.unet")
import PIL.Image, pandas
print(pkgutil.walk_packages is walk)
"""
    assert run(code) == "True"


@pytest.mark.slow
def test_after_a_whole_import_it_is_a_plain_one() -> None:
    code = """
import monai
print(monai_module("monai.networks.nets.unet") is sys.modules["monai.networks.nets.unet"])
"""
    assert run(code) == "True"
