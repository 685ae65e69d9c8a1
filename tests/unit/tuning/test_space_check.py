"""A space against the composed configuration, before anything runs."""

from pathlib import Path

import pytest

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.tuning.space import TuneSpace, find_space, load_space
from dsfedmed_ray.tuning.space_check import check_space

SMOKE = ["experiment=smoke"]


def _space(folder: Path, line: str, stage: str = "distill_mutually") -> TuneSpace:
    path = folder / "space.yaml"
    path.write_text(f"stage: {stage}\nmetric: best_validation_dice\nmode: max\nspace:\n  {line}\n")
    return load_space(path)


@pytest.mark.parametrize(("name", "overrides"), [("dsfedmed", []), ("fedavg", ["method=fedavg"])])
def test_shipped_spaces_fit(name: str, overrides: list[str]) -> None:
    space = load_space(find_space(Path(f"{name}.yaml")))
    assert check_space(space, [*SMOKE, *overrides]).runtime.clients == "serial"


def test_the_command_line_is_above_the_space(tmp_path: Path) -> None:
    space = _space(tmp_path, "method.selection.ratio: {uniform: [0.2, 1.0]}")
    assert check_space(space, ["runtime.clients=pool"]).runtime.clients == "pool"


def test_groups_can_be_chosen(tmp_path: Path) -> None:
    check_space(_space(tmp_path, "lightweight: {choice: [unet, nnunet]}"), SMOKE)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "method.selection.ration: {uniform: [0.2, 1.0]}",
            r"space\.method\.selection\.ration: the configuration has no such path; near it: "
            r"method\.selection\.ratio",
        ),
        (
            "method.selection.ratio: {uniform: [0.2, 1.5]}",
            r"space\.method\.selection\.ratio: method\.selection\.ratio is 1\.5; allowed: above 0",
        ),
        (
            "method.distillation.temperature: {uniform: [-1.0, 1.0]}",
            r"method\.distillation\.temperature is -1\.0; it must be positive",
        ),
        ("lightweight: {choice: [unet, vnet]}", r"space\.lightweight: .*vnet"),
        ("split.unseen_site: {choice: [t1_a, t2_a]}", r"split decides what is measured and cannot"),
        ("data.image_size: {choice: [64, 128]}", r"data decides what is measured"),
        ("seed: {randint: [0, 9]}", r"seed is chance; the best seed is not a better setting"),
        ("runtime.clients: {choice: [pool, serial]}", r"runtime changes no result"),
        ("store.dir: {choice: [a, b]}", r"store belongs to the study"),
    ],
)
def test_refusals_name_file_and_path(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refusal:
        check_space(_space(tmp_path, line), SMOKE)
    assert str(tmp_path / "space.yaml") in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("stage", "method", "known"),
    [
        ("distill_mutually", "fedavg", "train_federated"),
        ("synthesize", "dsfedmed", "distill_mutually, train_federated"),
        ("train_federated", "centralized", "train_centralized"),
    ],
)
def test_a_metric_that_no_run_reports(tmp_path: Path, stage: str, method: str, known: str) -> None:
    space = _space(tmp_path, "lightweight: {choice: [unet]}", stage)
    message = f"stage '{stage}' is reported by no run of the method {method}; .*validate: {known}"
    with pytest.raises(ConfigurationError, match=message):
        check_space(space, [f"method={method}"])


@pytest.mark.parametrize("method", ["fedavg", "dsfedmed"])
def test_a_stage_that_never_validates(tmp_path: Path, method: str) -> None:
    """On the command line, or by a value of the space; stage 5 validates all the same."""
    message = r"stage 'train_federated' is reported by no run with validate_every=0; set schedule"
    never = ["schedule.validate_every=0", "schedule.patience=null", f"method={method}"]
    space = _space(tmp_path, "lightweight: {choice: [unet]}", "train_federated")
    with pytest.raises(ConfigurationError, match=message):
        check_space(space, [*SMOKE, *never])
    key = "method.federated.validate_every"
    space = _space(tmp_path, f"{key}: {{choice: [1, 0]}}", "train_federated")
    with pytest.raises(ConfigurationError, match=rf"space\.{key}: .*{message}"):
        check_space(space, [*SMOKE, "schedule.patience=null", f"method={method}"])
    if method == "dsfedmed":
        check_space(_space(tmp_path, "lightweight: {choice: [unet]}"), [*SMOKE, *never])


def test_overrides_that_do_not_compose_are_shown(tmp_path: Path) -> None:
    space = _space(tmp_path, "method.selection.ratio: {uniform: [0.2, 1.0]}")
    with pytest.raises(ConfigurationError, match=r"with runtime\.clients=serial experiment=none: "):
        check_space(space, ["experiment=none"])
