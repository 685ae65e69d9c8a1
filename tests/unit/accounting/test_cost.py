"""The cost tables against the paper's."""

import functools

import pytest
import torch

from dsfedmed_ray.accounting import cost
from dsfedmed_ray.accounting.cost import (
    CommunicationRow,
    InferenceRow,
    communication_table,
    controlnet_state,
    inference_reduction,
    inference_table,
    state_bytes,
)
from dsfedmed_ray.accounting.inference import InferenceTime
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.unet import UNetConfig


@functools.cache
def table() -> dict[tuple[str, str], CommunicationRow]:
    return {(row.method, row.wire_dtype): row for row in communication_table()}


@pytest.mark.parametrize(
    ("method", "paper_mb"),
    [("FedSAM", 71_538), ("FedTinySAM", 7_770)],
)
def test_the_papers_megabytes_within_one_percent(method: str, paper_mb: float) -> None:
    row = table()[method, "float32"]
    assert row.paper_mb == paper_mb
    assert row.total_mb == pytest.approx(paper_mb, rel=0.01)


def test_fedsam_by_hand() -> None:
    """93,735,472 parameters x 4 bytes x 2 directions x 100 rounds / 2^20."""
    row = table()["FedSAM", "float32"]
    assert row.total_mb == pytest.approx(93_735_472 * 800 / 2**20)
    assert row.reduction_fraction == 0


def test_the_unused_head() -> None:
    """321,640 parameters, 245 MB over 100 rounds."""
    rows = [table()[name, "float32"] for name in ("FedTinySAM", "FedTinySAM, no unused head")]
    assert rows[0].total_mb - rows[1].total_mb == pytest.approx(321_640 * 800 / 2**20)


def test_controlnet_of_stable_diffusion() -> None:
    """361.28 M parameters (1,378 MB), where the paper's difference of 1,150 MB implies 301 M."""
    assert sum(value.numel() for value in controlnet_state(adapter="full").values()) == 361_279_120
    full, base = table()["DSFedMed", "float32"], table()["FedTinySAM", "float32"]
    assert full.total_mb - base.total_mb == pytest.approx(361_279_120 * 4 / 2**20)
    assert full.paper_mb == 8_920
    assert full.total_mb == pytest.approx(9_114, abs=1)
    assert full.reduction_fraction > 0.87


def test_low_rank_updates_cost_a_twentieth() -> None:
    lora = table()["DSFedMed, LoRA rank 16", "float32"]
    assert lora.once_parameters < 361_279_120 / 20
    assert lora.reduction_fraction > 0.89


def test_half_precision_halves_all_but_counters() -> None:
    """BatchNorm's integer counters keep 8 bytes each."""
    for name in ("FedSAM", "DSFedMed"):
        single, half = (table()[name, dtype] for dtype in ("float32", "float16"))
        assert half.total_mb == pytest.approx(single.total_mb / 2, rel=1e-4)
        assert half.paper_mb is None


def test_state_bytes() -> None:
    """Three floats and an int64."""
    state = {"a": torch.zeros(3), "n": torch.zeros((), dtype=torch.int64)}
    assert state_bytes(state, "float32") == 20
    assert state_bytes(state, "float16") == 14


def test_inference_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model is timed at its own image size, with the threads that were asked for."""
    threads: list[int] = []
    before = torch.get_num_threads()

    def timed(model: torch.nn.Module, image_size: int, **_: object) -> InferenceTime:
        threads.append(torch.get_num_threads())
        return InferenceTime(median_ms=float(image_size), p95_ms=2.0 * image_size, num_runs=7)

    def tiny(self: object, *, num_structures: int, image_size: int, seed: int) -> torch.nn.Module:
        return UNetConfig(channels=(2, 2)).build(num_structures=1, image_size=32, seed=0)

    monkeypatch.setattr(cost, "measure_inference_ms", timed)
    for config in (cost.SamConfig, cost.TinySamConfig, cost.LiteMedSAMConfig):
        monkeypatch.setattr(config, "build", tiny)
    rows = inference_table(num_threads=before + 1, warmup=4)
    assert threads == [before + 1] * 4
    assert torch.get_num_threads() == before
    assert {(r.num_runs, r.warmup, r.device, r.num_threads) for r in rows} == {
        (7, 4, "cpu", before + 1)
    }
    assert [(row.model, row.median_ms) for row in rows] == [
        ("SAM ViT-B", 1024),
        ("TinySAM", 1024),
        ("LiteMedSAM", 128),
        ("U-Net", 128),
    ]


def test_inference_reduction() -> None:
    """The paper's 118 and 15 ms: 87 % saved."""
    rows = [
        InferenceRow(
            model=name,
            image_size=1024,
            num_parameters=1,
            median_ms=ms,
            p95_ms=ms,
            num_runs=1,
            warmup=0,
            device="cpu",
            num_threads=1,
        )
        for name, ms in (("SAM ViT-B", 118.0), ("TinySAM", 15.0))
    ]
    assert inference_reduction(rows) == pytest.approx(0.873, abs=1e-3)


def test_where_nothing_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match=r"device cuda .* no CUDA device; .* or use cpu"):
        inference_table(device="cuda")
    with pytest.raises(ConfigurationError, match="threads is 0; at least 1"):
        inference_table(num_threads=0)


def test_no_rounds() -> None:
    with pytest.raises(ConfigurationError, match="num_rounds is 0; at least 1"):
        communication_table(num_rounds=0)
