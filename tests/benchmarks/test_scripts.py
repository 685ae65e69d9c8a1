"""Every script of benchmarks/ runs in its smallest form, so that none falls behind the package."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _threads_of_this_process() -> Iterator[None]:
    """The scripts set their own."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("trainable", [None, "decoder"])
def test_distillation(trainable: str | None, tmp_path: Path) -> None:
    """Eight samples of 32 pixels, one epoch of each loop; the shipped file trains the last stage.

    20 epochs are 20 times the one that is timed, so the ratio of two entries is the speed-up.
    """
    arguments = ["--json", str(tmp_path / "rows.json"), "--size", "32", "--precision", "fp32"]
    arguments += ["--samples", "8", "--every-epochs", "1", "--release-epochs", "1"]
    arguments += ["--unselected-epochs", "1"]
    script("distillation").main(arguments + (["--trainable", trainable] if trainable else []))
    row = json.loads((tmp_path / "rows.json").read_text())["32 px, torch.float32"]
    assert row["trainable"] == (trainable or "last_stage")
    assert row["speedup"] == pytest.approx(row["release_seconds"] / row["our_seconds"])
    assert 0 < row["speedup_with_embedding"] < row["speedup"]


def test_generator_quality(tmp_path: Path) -> None:
    """Two images of one client's generator, after two steps of everything."""
    settings = ["--sites", "t1_a", "--samples", "2", "--max-pairs", "8", "--fit-steps", "2"]
    settings += ["--set", "steps=2", "num_inference_steps=2"]
    script("generator_quality").main([str(tmp_path), *settings])
    rows = json.loads((tmp_path / "quality.json").read_text())
    assert rows["t1_a"]["tune_seconds"] > 0
    assert (tmp_path / "synthetic.png").exists()


def test_runtime(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its help, and one round of two clients in the runners that need no Ray."""
    monkeypatch.syspath_prepend(FOLDER)
    runtime = script("runtime")
    small = runtime.WORKLOADS["small"]
    assert runtime.bare_rounds(small, 1, 2) > 0
    assert runtime.pool_rounds(runtime.serial_pool(small), small, 1, 2) > 0
    monkeypatch.setattr(sys, "argv", ["runtime.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runtime.main()
    assert "--full-participation" in capsys.readouterr().out


def test_paper_scale(tmp_path: Path) -> None:
    """One part at toy size, in a process of its own; memory is counted on GPUs alone."""
    path, part = tmp_path / "rows.json", "tinysam, all of it"
    command = [sys.executable, str(FOLDER / "paper_scale.py"), "--toy", "--json", str(path)]
    subprocess.run([*command, "--steps", "2", "--only", part], check=True, timeout=300)
    rows = json.loads(path.read_text())
    assert list(rows) == ["device", "torch", part]
    assert rows[part]["step_ms"] > 0


@pytest.mark.parametrize(
    "part",
    [
        "sd15, drawing four images",
        "sam_vit_b, embedding four images",
        "sam_vit_b, stage 5, decoder",
    ],
)
def test_a_part_of_paper_scale(part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other kinds of work, in this process."""
    monkeypatch.syspath_prepend(FOLDER)
    paper_scale = script("paper_scale")
    scale = paper_scale.Scale(device="cpu", toy=True, steps=1, folder=tmp_path)
    assert paper_scale.measure(part, scale)["step_ms"] > 0
