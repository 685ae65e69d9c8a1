"""Which values become curves."""

from pathlib import Path

from dsfedmed_ray.records import ProgressRecord
from dsfedmed_ray.report.figures import dice_curves, draw_rounds, with_a_course


def record(stage: str, index: int, **values: float) -> ProgressRecord:
    return ProgressRecord(stage=stage, index=index, total=9, seconds=1.0, values=values)


RECORDS = [
    record("tune_generators", 0, loss=0.5),
    record("train_federated", 0, validation_dice=0.5, uplink_bytes=10),
    record("train_federated", 2, validation_dice=0.7, **{"validation_dice/north": 0.6}),
    record("distill_mutually", 0, foundation_dice=0.8),
    record("distill_mutually", 1, foundation_dice=0.8),
]


def test_curves_by_stage() -> None:
    """Rounds count from 1; a round that was not validated leaves a gap; losses are no Dice."""
    assert dice_curves(RECORDS) == {
        "train_federated": {
            "validation_dice": ([1, 3], [0.5, 0.7]),
            "validation_dice/north": ([3], [0.6]),
        },
        "distill_mutually": {"foundation_dice": ([1, 2], [0.8, 0.8])},
    }


def test_svg_and_file(tmp_path: Path) -> None:
    svg = draw_rounds(RECORDS, tmp_path / "figures" / "rounds.png")
    assert svg is not None
    assert svg.startswith("<svg")
    for text in (">train federated<", ">distill mutually<", ">0.700<", ">0.800<", ">round<"):
        assert text in svg
    assert (tmp_path / "figures" / "rounds.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert draw_rounds(RECORDS[:1], tmp_path / "rounds.png") is None
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_was_judged_once_has_no_panel() -> None:
    """Stage ``b`` has one point; alone it would be drawn."""
    course, point = {"dice": ([1, 2], [0.5, 0.6])}, {"dice": ([20], [0.7])}
    assert with_a_course({"a": course, "b": point}) == {"a": course}
    assert with_a_course({"b": point}) == {"b": point}
