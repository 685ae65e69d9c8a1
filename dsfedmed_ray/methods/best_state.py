"""Model selection: the latest state about as good as the best on the seen sites' validation."""

from typing import Any

from torch import Tensor

from dsfedmed_ray.models.segmenter import State


class BestState:
    """Keeps a state by its validation score and knows when waiting has been long enough.

    The unseen site never enters: scores come from the seen sites' validation parts only. They are
    means over few images, so states whose scores differ by less than their noise count as equally
    good, and of those the latest is kept: it has seen the most.

    Args:
        tolerance: by how much a later state's score may lie below the best; 0 keeps the best, 1
            the last.

    Attributes:
        score: the highest score so far.
        best_unit: when it was reached.
        unit: when the kept state was reached; not before ``best_unit``.
        state: the kept state.
        is_complete: whether all sites that were asked scored the kept state.
    """

    def __init__(self, tolerance: float = 0.0) -> None:
        self.score: float | None = None
        self.best_unit = -1
        self.unit = -1
        self.state: State = {}
        self.is_complete = False
        self._tolerance = tolerance

    def offer(self, unit: int, score: float, state: State, *, is_complete: bool = True) -> bool:
        """Keeps ``state`` if it is better, or later and within the tolerance; says whether so.

        A mean over some of the sites is not comparable with one over all: where a site did not
        answer (``is_complete=False``) a state is kept only until one that all have scored.
        """
        if self.is_complete and not is_complete:
            return False
        better = self.score is None or score > self.score or is_complete > self.is_complete
        if better:
            self.is_complete = is_complete
            self.score, self.best_unit = score, unit
        assert self.score is not None
        if not better and (self._tolerance == 0 or score < self.score - self._tolerance):
            return False
        self.unit = unit
        self.state = {name: value.detach().cpu().clone() for name, value in state.items()}
        return True

    def is_exhausted(self, unit: int, patience: int | None) -> bool:
        """Whether ``patience`` units have passed since the best score."""
        waited = unit - self.best_unit
        return patience is not None and self.score is not None and waited >= patience

    def snapshot(self) -> dict[str, Any]:
        """Plain content for a checkpoint."""
        return {
            "score": self.score,
            "best_unit": self.best_unit,
            "unit": self.unit,
            "state": self.state,
            "is_complete": self.is_complete,
        }

    @classmethod
    def restored(cls, content: dict[str, Any], tolerance: float = 0.0) -> "BestState":
        """From :meth:`snapshot`."""
        best = cls(tolerance)
        best.score, best.best_unit = content["score"], content["best_unit"]
        best.unit, best.is_complete = content["unit"], content["is_complete"]
        state: dict[str, Tensor] = content["state"]
        best.state = state
        return best
