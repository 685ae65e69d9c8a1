"""A worker's model in two parts: what is broadcast, and what every client keeps for itself."""

from collections.abc import Collection

from dsfedmed_ray.learning.aggregation import FlatState, ResidentModel, StateLayout
from dsfedmed_ray.models.segmenter import Segmenter


class ResidentSegmenter:
    """One model that becomes one client after the other.

    Args:
        model: on its device, not trained yet.
        kept: entries of its trainable state that stay at the client.

    Attributes:
        model: the model; its trainable entries are views of the two parts.
        shared: what is broadcast and averaged.
        kept: what a client keeps; empty where everything is averaged.
        initial_kept: what a client starts with that has not trained yet.
    """

    def __init__(self, model: Segmenter, kept: Collection[str]) -> None:
        state = model.trainable_state()
        self._layout = StateLayout.of(state)
        self.model = model
        self.shared = ResidentModel(model, tuple(name for name in state if name not in kept))
        self.kept = ResidentModel(model, tuple(name for name in state if name in kept))
        now = self.kept.read()
        self.initial_kept = FlatState(values=now.values.copy(), counters=now.counters.copy())

    def read_whole(self) -> FlatState:
        """A copy of all trainable entries."""
        return self._layout.flatten(self.model.trainable_state())

    def load_whole(self, flat: FlatState) -> None:
        """Loads a state of all trainable entries."""
        self.model.load_trainable_state(self._layout.unflatten(flat))
