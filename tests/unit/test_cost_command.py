"""``dsfedmed cost``: what it prints, what it writes, and what it refuses."""

import json
import re
from pathlib import Path

import pytest
import torch

from dsfedmed_ray.accounting import cost
from dsfedmed_ray.cli import main
from dsfedmed_ray.models.segmenter import State
from dsfedmed_ray.models.unet import UNetConfig


@pytest.fixture(autouse=True)
def _tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A U-Net of 32 pixels is timed as every model; the ControlNet is one value."""

    def tiny(self: object, *, num_structures: int, image_size: int, seed: int) -> torch.nn.Module:
        return UNetConfig(channels=(2, 2)).build(num_structures=1, image_size=32, seed=0)

    def one_value(**_: object) -> State:
        return {"weight": torch.zeros(1)}

    for config in (cost.SamConfig, cost.TinySamConfig, cost.LiteMedSAMConfig):
        monkeypatch.setattr(config, "build", tiny)
    for config in (cost.SamAdapterConfig, cost.NnUNetConfig):
        monkeypatch.setattr(config, "build", tiny)
    monkeypatch.setattr(cost, "controlnet_state", one_value)
    monkeypatch.setattr(cost, "PAPER_IMAGE_SIZE", 32)
    monkeypatch.setattr(cost, "EMBEDDED_IMAGE_SIZE", 32)


def test_bytes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten methods in two formats; nothing is timed."""
    assert main(["cost", "--rounds", "2", "--json", str(tmp_path / "cost.json")]) == 0
    assert "MB (2^20 bytes) a client, 2 rounds, up and down" in capsys.readouterr().out
    content = json.loads((tmp_path / "cost.json").read_text())
    assert content.keys() == {"communication"}
    assert len(content["communication"]) == 20


def test_inference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four models, each timed 50 times after two runs, on the device and with the threads named."""
    before = torch.get_num_threads()
    arguments = ["cost", "--inference", "--threads", "1", "--json", str(tmp_path / "cost.json")]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "cpu, 1 thread" in said
    assert re.search(r"TinySAM saves -?[\d.]+% of SAM-B's time", said)
    rows = json.loads((tmp_path / "cost.json").read_text())["inference"]
    assert [row["model"] for row in rows] == ["SAM ViT-B", "TinySAM", "LiteMedSAM", "U-Net"]
    for row in rows:
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert (row["num_runs"], row["warmup"], row["device"]) == (50, 2, "cpu")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "num_rounds is 0; at least 1"),
        (["--inference", "--threads", "0"], "threads is 0; at least 1"),
        (["--inference", "--device", "cuda"], "device cuda was asked for, but there is no CUDA"),
    ],
)
def test_refusals(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["cost", *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"dsfedmed: error: {said}")
