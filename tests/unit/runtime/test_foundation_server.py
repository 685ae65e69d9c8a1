"""The foundation model's server: features of images, and a model that does not fit."""

from pathlib import Path

import pytest
import torch

from dsfedmed_ray.data.brain_sites import BrainSitesConfig
from dsfedmed_ray.data.splits import LeaveOneSiteOut
from dsfedmed_ray.data.synthetic_samples import to_table, write_synthetic
from dsfedmed_ray.errors import ResourceError
from dsfedmed_ray.evaluation.synthesis_quality import kernel_distance
from dsfedmed_ray.models.litemedsam import LiteMedSAMConfig
from dsfedmed_ray.models.sam_segmenter import SamSegmenter
from dsfedmed_ray.records import StyleOrigin, SyntheticSample
from dsfedmed_ray.runtime.foundation_server import FoundationServer, FoundationSettings


def full(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 ...\nmore")


def test_a_model_that_does_not_fit_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is built on the CPU, and moving it is what fails."""
    split = LeaveOneSiteOut().apply(BrainSitesConfig(image_size=64).build())
    settings = FoundationSettings(
        model=LiteMedSAMConfig(input_size=64, weights="random"),
        split=split,
        seed=0,
        embeddings_folder=tmp_path,
    )
    monkeypatch.setattr(SamSegmenter, "to", full)
    with pytest.raises(ResourceError, match=r"^the GPU is too small: 2\.5 GB needed; lower"):
        FoundationServer(settings)


def test_kernel_distance_of_own_and_of_foreign_images(tmp_path: Path) -> None:
    """The first client's synthetic images are its own, the second's black.

    Images in shifted styles, black as well, do not count. Equal sets have a distance near 0.
    """
    split = LeaveOneSiteOut().apply(BrainSitesConfig(image_size=64).build())
    first, second = split.seen_sites[:2]
    drawn: list[tuple[str, int, StyleOrigin]] = [
        (first, 1, "client"),
        (first, 0, "shifted"),
        (second, 0, "client"),
    ]
    samples = [
        SyntheticSample(
            image=sample.image * brightness,
            mask=sample.mask,
            sample_id=f"{client}-{style}-{index}",
            client=client,
            mask_origin="client",
            style_origin=style,
            seed=0,
        )
        for client, brightness, style in drawn
        for index, sample in enumerate(list(split.samples(client, "train"))[:6])
    ]
    (tmp_path / "set").mkdir()
    write_synthetic(to_table(samples), tmp_path / "set" / "0.parquet")
    settings = FoundationSettings(
        model=LiteMedSAMConfig(input_size=64, weights="random"),
        split=split,
        seed=0,
        embeddings_folder=tmp_path,
    )
    features = FoundationServer(settings).client_features(tmp_path / "set", [first, second])
    own, foreign = (kernel_distance(*features[client], seed=0) for client in (first, second))
    assert own is not None
    assert foreign is not None
    assert abs(own) < 0.2 * foreign
