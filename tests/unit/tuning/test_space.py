"""Space files: read, and refused with file and key."""

from pathlib import Path

import pytest

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.tuning.space import find_space, load_space

GOOD = """
stage: distill_mutually
metric: best_validation_dice
mode: max
space:
  method.selection.ratio: {uniform: [0.2, 1.0]}
"""


def _written(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def test_defaults(tmp_path: Path) -> None:
    space = load_space(_written(tmp_path, GOOD))
    assert (space.search, space.scheduler, space.budget.num_trials) == ("random", "fifo", 16)
    assert space.trial.overrides == ("runtime.clients=serial",)
    assert space.grid_size == 1


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-3 as a text."""
    text = GOOD + "  method.distillation.kl_weight: {loguniform: [1e-3, 1e-1]}\n"
    space = load_space(_written(tmp_path, text))
    assert space.space["method.distillation.kl_weight"].values == (0.001, 0.1)


def test_a_grid_has_the_product_of_its_lists(tmp_path: Path) -> None:
    text = GOOD + "  a: {grid: [1, 2]}\n  b: {grid: [1, 2, 3]}\n"
    assert load_space(_written(tmp_path, text)).grid_size == 6


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mode: max", "", r"space\.yaml: mode is missing"),
        ("mode: max", "mode: min", r"space\.yaml: mode is 'min'; Dice is better when higher"),
        ("mode: max", "mode: max\nseeds: 3", r"unknown key seeds; allowed: stage, metric"),
        ("mode: max", "mode: max\nsearch: grid", r"search is 'grid'; allowed: random, optuna"),
        ("mode: max", "mode: max\nscheduler: pbt", r"scheduler is 'pbt'; allowed: fifo, asha"),
        (
            "mode: max",
            "mode: max\nbudget: {trials: 3}",
            r"unknown key budget\.trials; allowed: num",
        ),
        ("mode: max", "mode: max\nbudget: {num_trials: 0}", r"budget\.num_trials is 0; a whole"),
        ("mode: max", "mode: max\nbudget: {seconds: 0}", r"budget\.seconds is 0; above 0, or null"),
        ("mode: max", "mode: max\nasha: {reduction_factor: 1}", r"asha\.reduction_factor is 1; a"),
        ("mode: max", "mode: max\nasha: 3", r"asha is 3; keys with values"),
        ("mode: max", "mode: max\ntrial: {num_cpus: 0}", r"trial\.num_cpus is 0; allowed: above"),
        ("mode: max", "mode: max\ntrial: {num_gpus: -1}", r"trial\.num_gpus is -1; allowed: 0"),
        ("mode: max", "mode: max\ntrial: {overrides: [x]}", r"trial\.overrides is \['x'\]; a list"),
        (
            "mode: max",
            "mode: max\ntrial: {overrides: [runtime.clients=pool, +schedule.rounds=3]}",
            r"trial\.overrides holds '\+schedule\.rounds=3'; allowed: runtime keys",
        ),
        ("best_validation_dice", "loss", r"metric 'loss' is reported by no run; allowed: best_v"),
        ("best_validation_dice", "unseen_dice", r"nothing is ever tuned on the unseen site"),
        ("best_validation_dice", "metrics.lightweight.unseen.mean.dice", r"on the unseen site"),
        ("best_validation_dice", "test_dice", r"on the unseen site or on test parts"),
        ("{uniform: [0.2, 1.0]}", "{uniform: [1, 0]}", r"space\.method\.selection\.ratio\.uniform"),
        ("  method.selection.ratio: {uniform: [0.2, 1.0]}", "", r"space is missing"),
        ("\nspace", "\nsearch: optuna\nspace", None),
        ("{uniform: [0.2, 1.0]}", "{grid: [0.2, 1.0]}\nsearch: optuna", r"optuna draws values"),
        ("space:", "space: [", r"space\.yaml is not YAML"),
    ],
)
def test_refusals_name_file_and_key(
    tmp_path: Path, old: str, new: str, message: str | None
) -> None:
    assert old in GOOD
    path = _written(tmp_path, GOOD.replace(old, new))
    if message is None:
        load_space(path)
        return
    with pytest.raises(ConfigurationError, match=message) as refusal:
        load_space(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the space file .*no\.yaml: No such"):
        load_space(tmp_path / "no.yaml")


@pytest.mark.parametrize("name", ["dsfedmed", "fedavg"])
def test_shipped_spaces_load(name: str) -> None:
    space = load_space(find_space(Path("elsewhere") / f"{name}.yaml"))
    assert space.metric == "best_validation_dice"
