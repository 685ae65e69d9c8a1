"""Stage 5: foundation and lightweight model teach each other on the selected samples."""

from pathlib import Path
from typing import Any

from dsfedmed_ray.learning.learnability import Selection
from dsfedmed_ray.learning.mutual_distillation import Distillation
from dsfedmed_ray.methods.dsfedmed import exchange_logits
from dsfedmed_ray.methods.dsfedmed.exchange_logits import LogitExchange
from dsfedmed_ray.methods.dsfedmed.serve_targets import ServedTargets
from dsfedmed_ray.methods.dsfedmed.student import INITIAL, Student
from dsfedmed_ray.methods.method import FOUNDATION_FILE, MODEL_FILE
from dsfedmed_ray.methods.resumable import UnitResult
from dsfedmed_ray.methods.run_context import RunContext
from dsfedmed_ray.models.segmenter import State
from dsfedmed_ray.models.weights import save_weights
from dsfedmed_ray.runtime.client_pool import ClientPool
from dsfedmed_ray.runtime.pending import FoundationHandle

STAGE = exchange_logits.STAGE


class DistillationEpochs:
    """The epochs of stage 5; a unit is an epoch."""

    def __init__(
        self,
        context: RunContext,
        pool: ClientPool,
        foundation: FoundationHandle,
        *,
        synthetic: Path,
        initial_lightweight: State,
        initial_foundation: State,
        config: Distillation,
        selection: Selection,
    ) -> None:
        self._context = context
        self._pool = pool
        self._foundation = foundation
        self._synthetic = synthetic
        self._initial = initial_lightweight
        self._initial_foundation = initial_foundation
        self._config = config
        self._selection = selection

    def begin(self, content: dict[str, Any] | None) -> None:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        self._student = Student(
            self._context,
            self._pool,
            stage=STAGE,
            synthetic=self._synthetic,
            initial=self._initial,
            config=self._config,
        )
        self._foundation.call("load_trainable_state", self._initial_foundation).result()
        self._foundation.call("open_pool", self._synthetic).result()
        self._foundation.call("start_distillation", self._config).result()
        self._exchange = self._exchange_over()
        self._student.begin(None if content is None else content["student"])
        if content is not None:
            self._foundation.call("restore_progress", content["foundation"]).result()
            self._exchange.restore(content["exchange"])

    def advance(self, unit: int) -> UnitResult:
        """One epoch of the exchange, then validation at the clients where it is due."""
        values = self._exchange.epoch(unit)
        judged, sent = self._student.validated(unit)
        return UnitResult(values=values | judged, transfers=self._exchange.transfers + sent)

    def is_finished(self) -> bool:
        """Whether patience has run out."""
        return self._student.is_finished()

    def snapshot(self) -> dict[str, Any]:
        """See :class:`~dsfedmed_ray.methods.resumable.ResumableWork`."""
        return {
            "student": self._student.snapshot(),
            "foundation": self._foundation.call("progress_state").result(),
            "exchange": self._exchange.snapshot(),
        }

    def save(self, folder: Path) -> None:
        """Writes the best lightweight model and the foundation model after the last epoch."""
        best = self._student.best
        if best.unit == INITIAL:
            self._context.progress.note(
                "distill mutually  no epoch was better on the seen sites' validation, so the "
                "federated model stays the result"
            )
        save_weights(best.state, folder / MODEL_FILE)
        save_weights(self._foundation.call("trainable_state").result(), folder / FOUNDATION_FILE)

    def _exchange_over(self) -> LogitExchange | ServedTargets:
        learner, masks = self._student.learner, self._student.masks
        if self._config.placement == "server":
            return LogitExchange(
                self._foundation,
                learner,
                masks,
                config=self._config,
                selection=self._selection,
                seed=self._context.seed,
            )
        return ServedTargets(
            self._context,
            self._pool,
            self._foundation,
            learner,
            masks,
            synthetic=self._synthetic,
            config=self._config,
            selection=self._selection,
        )


def distill_mutually(
    context: RunContext,
    pool: ClientPool,
    *,
    synthetic: Path,
    initial_lightweight: State,
    initial_foundation: State,
    config: Distillation,
    selection: Selection,
    folder: Path,
) -> None:
    """Distils and writes both models to ``folder``."""
    foundation = context.foundation_server()
    epochs = DistillationEpochs(
        context,
        pool,
        foundation,
        synthetic=synthetic,
        initial_lightweight=initial_lightweight,
        initial_foundation=initial_foundation,
        config=config,
        selection=selection,
    )
    context.unit_loop(STAGE).run(
        STAGE,
        config.epochs,
        epochs,
        finish=lambda: epochs.save(folder),
        recover=foundation.replace,
    )
