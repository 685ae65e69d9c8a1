"""The lightweight model of stage 5, its patience."""

from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.methods.best_state import BestState
from dsfedmed_ray.methods.dsfedmed.student import INITIAL, Student


def test_patience_ends_distillation_after_a_validated_epoch_alone() -> None:
    """Patience 3, validated every 4th: the federated model stays the best, over in epoch 3."""
    student = object.__new__(Student)
    student._config = Distillation(epochs=40, patience=3, validate_every=4)
    student.best = BestState(0.01)
    student.best.offer(INITIAL, 0.9, {})
    finished = []
    for student._last in range(4):
        finished.append(student.is_finished())
    assert finished == [False, False, False, True]
