"""Stage 4: the foundation model is adapted to the synthetic set; its encoder stays frozen."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from dsfedmed_ray.learning.foundation_adaptation import Adaptation
from dsfedmed_ray.methods.method import FOUNDATION_FILE
from dsfedmed_ray.methods.resumable import UnitResult
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.weights import save_weights
from dsfedmed_ray.runtime.adaptation_order import AdaptationOrder, AdaptationSteps
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


class SharedEpochs:
    """The epochs of stage 4 on several workers; a unit is an epoch.

    The foundation model's own process only makes the start, embeddings and the shift of the logits.
    Then it gives its place to the workers.
    """

    def __init__(self, context: RunContext, synthetic: Path, config: Adaptation) -> None:
        self._context = context
        self._synthetic = synthetic.absolute()
        self._config = config
        self._progress: dict[str, Any] = {}
        self._steps: AdaptationSteps | None = None

    def begin(self, content: dict[str, Any] | None) -> None:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        self.close()
        if content is None:
            start = AdaptationEpochs(
                self._context.foundation_server(), self._synthetic, self._config
            )
            start.begin(None)
            content = start.snapshot()
        self._context.close_foundation()
        self._progress = content

    def advance(self, unit: int) -> UnitResult:
        """One epoch over the synthetic set."""
        if self._steps is None:
            self._steps = self._context.engine.adapt(
                AdaptationOrder(
                    settings=self._context.foundation_settings(),
                    synthetic=self._synthetic,
                    config=self._config,
                    progress=self._progress,
                    first_epoch=unit,
                )
            )
        loss, self._progress = next(self._steps)
        return UnitResult(values={"loss": loss})

    def is_finished(self) -> bool:
        """See :class:`AdaptationEpochs`."""
        return False

    def snapshot(self) -> dict[str, Any]:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        return self._progress

    def save(self, folder: Path) -> None:
        """Writes the trained part of the foundation model."""
        save_weights(self._progress["model"], folder / FOUNDATION_FILE)

    def close(self) -> None:
        """Ends the workers, if there are any."""
        if self._steps is not None:
            self._steps.close()
        self._steps = None


def adapt_foundation(
    context: RunContext, synthetic: Path, config: Adaptation, folder: Path
) -> None:
    """Adapts the foundation model and writes its trained part to ``folder``."""
    if config.num_workers > 1:
        shared = SharedEpochs(context, synthetic, config)
        with closing(shared):
            _run(context, shared, config, folder, context.close_foundation)
    else:
        foundation = context.foundation_server()
        epochs = AdaptationEpochs(foundation, synthetic, config)
        _run(context, epochs, config, folder, foundation.replace)


def _run(
    context: RunContext,
    epochs: AdaptationEpochs | SharedEpochs,
    config: Adaptation,
    folder: Path,
    recover: Callable[[], None],
) -> None:
    context.unit_loop(STAGE).run(
        STAGE, config.epochs, epochs, finish=lambda: epochs.save(folder), recover=recover
    )
