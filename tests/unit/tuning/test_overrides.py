"""A trial's values as Hydra overrides, there and back."""

from pathlib import Path

import pytest

from dsfedmed_ray.configuration import compose
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.tuning.overrides import command_line, overrides_of, read_overrides


def test_values_are_rounded_to_four_digits_and_sorted_by_path() -> None:
    """0.123456 has the four significant digits 0.1235; 30 and texts stay."""
    assert overrides_of({"b.y": 0.123456, "a.x": 30, "c": "keep"}) == [
        "a.x=30",
        "b.y=0.1235",
        "c=keep",
    ]


@pytest.mark.parametrize(
    "value", [None, True, 3, 0.25, 1e-05, "keep", "it's a text, with = and {}", [8, 16], ""]
)
def test_hydra_reads_the_value_that_was_written(value: object) -> None:
    config = compose(overrides_of({"run.dir": value}))
    assert config.run.dir == value


def test_the_line_can_be_pasted_into_a_shell() -> None:
    assert command_line(["a=1", "b=[1,2]", "c='x y'"]) == (
        "dsfedmed run a=1 'b=[1,2]' 'c='\"'\"'x y'\"'\"''"
    )


def test_reads_a_file_of_overrides(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    path.write_text("# best\noverrides:\n- experiment=smoke\n- method.selection.ratio=0.5\n")
    assert read_overrides(path) == ["experiment=smoke", "method.selection.ratio=0.5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("overrides: 3", r"best\.yaml has no list of overrides; expected 'overrides: \[KEY"),
        ("- a=1", "has no list of overrides"),
    ],
)
def test_names_a_file_without_overrides(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "best.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_overrides(path)


def test_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*best\.yaml: No such file"):
        read_overrides(tmp_path / "best.yaml")
