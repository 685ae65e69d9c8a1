"""Stage 4: the foundation model is adapted to the synthetic set; its encoder stays frozen."""

from pathlib import Path
from typing import Any

from dsfedmed_ray.learning.foundation_adaptation import Adaptation
from dsfedmed_ray.methods.method import FOUNDATION_FILE, RunContext
from dsfedmed_ray.methods.resumable import UnitResult
from dsfedmed_ray.models.weights import save_weights
from dsfedmed_ray.runtime.pending import FoundationHandle

STAGE = "adapt_foundation"


class AdaptationEpochs:
    """The epochs of stage 4; a unit is an epoch."""

    def __init__(self, foundation: FoundationHandle, synthetic: Path, config: Adaptation) -> None:
        self._foundation = foundation
        self._synthetic = synthetic
        self._config = config

    def begin(self, content: dict[str, Any] | None) -> None:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        self._foundation.call("open_pool", self._synthetic).result()
        self._foundation.call("start_adaptation", self._config).result()
        if content is not None:
            self._foundation.call("restore_progress", content).result()

    def advance(self, unit: int) -> UnitResult:
        """One epoch over the synthetic set."""
        return UnitResult(values={"loss": self._foundation.call("adapt_epoch", unit).result()})

    def is_finished(self) -> bool:
        """Adaptation has no validation to stop by: the server holds no real image."""
        return False

    def snapshot(self) -> dict[str, Any]:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        content: dict[str, Any] = self._foundation.call("progress_state").result()
        return content

    def save(self, folder: Path) -> None:
        """Writes the trained part of the foundation model."""
        save_weights(self._foundation.call("trainable_state").result(), folder / FOUNDATION_FILE)


def adapt_foundation(
    context: RunContext, synthetic: Path, config: Adaptation, folder: Path
) -> None:
    """Adapts the foundation model and writes its trained part to ``folder``."""
    foundation = context.foundation_server()
    epochs = AdaptationEpochs(foundation, synthetic, config)
    context.unit_loop(STAGE).run(
        STAGE,
        config.epochs,
        epochs,
        finish=lambda: epochs.save(folder),
        recover=foundation.replace,
    )
