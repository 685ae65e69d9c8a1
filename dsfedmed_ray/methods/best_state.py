"""Model selection: the state with the best score on the seen sites' validation pairs."""

from typing import Any

from torch import Tensor

from dsfedmed_ray.models.segmenter import State


class BestState:
    """Keeps the best state so far and knows when waiting has been long enough.

    The unseen site never enters: scores come from the seen sites' validation parts only.
    """

    def __init__(self) -> None:
        self.score: float | None = None
        self.unit = -1
        self.state: State = {}

    def offer(self, unit: int, score: float, state: State) -> bool:
        """Keeps ``state`` if it is strictly better; says whether it was."""
        if self.score is not None and score <= self.score:
            return False
        self.score, self.unit = score, unit
        self.state = {name: value.detach().cpu().clone() for name, value in state.items()}
        return True

    def is_exhausted(self, unit: int, patience: int | None) -> bool:
        """Whether ``patience`` units have passed since the best one."""
        return patience is not None and self.score is not None and unit - self.unit >= patience

    def snapshot(self) -> dict[str, Any]:
        """Plain content for a checkpoint."""
        return {"score": self.score, "unit": self.unit, "state": self.state}

    @classmethod
    def restored(cls, content: dict[str, Any]) -> "BestState":
        """From :meth:`snapshot`."""
        best = cls()
        best.score, best.unit = content["score"], content["unit"]
        state: dict[str, Tensor] = content["state"]
        best.state = state
        return best
