"""The foundation model's side of the server: embeds, adapts, scores and serves targets.

A plain class. With Ray it lives in its own actor, which holds the GPU; in serial runs it is called
directly. Both go through the same methods, so both give the same bits.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsfedmed_ray.accounting.inference import InferenceTime, measure_inference_ms
from dsfedmed_ray.data.federation import Part
from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.data.synthetic_samples import in_own_style, read_synthetic
from dsfedmed_ray.evaluation.evaluator import score
from dsfedmed_ray.evaluation.synthesis_quality import features_of
from dsfedmed_ray.learning.foundation_adaptation import (
    WHOLE_BATCH,
    Adaptation,
    BatchShare,
    adapt_one_epoch,
    shift_to_prior,
)
from dsfedmed_ray.learning.mutual_distillation import Distillation, PoolLearner
from dsfedmed_ray.models.precision import Precision, arithmetic
from dsfedmed_ray.models.segmenter import FoundationSegmenter, SegmenterConfig, State
from dsfedmed_ray.records import SegmentationScores
from dsfedmed_ray.runtime.devices import role_device, role_threads
from dsfedmed_ray.runtime.embedding_store import Embeddings, arithmetic_name, stored_embeddings
from dsfedmed_ray.runtime.foundation_build import build_foundation
from dsfedmed_ray.seeding import torch_generator


@dataclass(frozen=True, kw_only=True)
class FoundationSettings:
    """What a :class:`FoundationServer` is built from.

    Attributes:
        model: the foundation model.
        split: sites and parts; read only to score real images, which is instrumentation.
        seed: the run's seed.
        embeddings_folder: where embeddings are kept, on a local disk.
        num_threads: torch threads; part of the configuration, since it decides bits.
        precision: of the model's arithmetic; decides bits as well.
        num_gpus: its share of a GPU.
        score_batch_size: real images a forward pass.
    """

    model: SegmenterConfig
    split: SplitFederation
    seed: int
    embeddings_folder: Path
    num_threads: int = 2
    precision: Precision = "fp32"
    num_gpus: float = 0.0
    score_batch_size: int = 8


class FoundationServer:
    """Holds the foundation model and, once opened, the synthetic pool."""

    def __init__(self, settings: FoundationSettings) -> None:
        self._settings = settings
        self._device = role_device(settings.num_gpus)
        with self._computing():
            model = build_foundation(settings.model, settings.split, settings.seed)
            self._model = model.to(self._device).eval()
        self._embeddings: Embeddings | None = None
        self._masks = torch.empty(0)
        self._optimizer: torch.optim.Optimizer | None = None
        self._adaptation: Adaptation | None = None
        self._adapted: torch.nn.Module | None = None
        self._share = WHOLE_BATCH
        self._learner: PoolLearner | None = None

    def open_pool(self, synthetic_folder: Path) -> int:
        """Reads the synthetic set and its embeddings; gives the number of samples."""
        samples = read_synthetic(synthetic_folder)
        masks = np.stack([sample.mask for sample in samples]).transpose(0, 3, 1, 2)
        settings = self._settings
        kind = arithmetic_name(settings.precision, self._device, settings.num_threads)
        with self._computing():
            self._masks = torch.tensor(np.ascontiguousarray(masks), device=self._device)
            self._embeddings = stored_embeddings(
                self._model,
                samples,
                settings.embeddings_folder / kind,
                device=self._device,
            )
        return len(samples)

    def start_adaptation(self, config: Adaptation) -> None:
        """Prepares stage 4 with a fresh optimiser, after :meth:`open_pool`."""
        if config.start_at_prior:
            self._model.eval()
            with self._computing():
                shift = shift_to_prior(
                    self._model.decode, self._pool(), self._masks, config.batch_size
                )
            self._model.shift_logits(shift)
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
        self._adaptation = config
        self._adapted, self._share = self._decoder(), WHOLE_BATCH

    def join_adaptation(
        self, share: BatchShare, distribute: Callable[[torch.nn.Module], torch.nn.Module]
    ) -> None:
        """Makes this server one of several that adapt together, after :meth:`start_adaptation`.

        Args:
            share: its part of every batch.
            distribute: wraps the trained part so that gradients are averaged over the workers.
        """
        self._adapted, self._share = distribute(self._decoder()), share

    def adapt_epoch(self, epoch: int) -> float:
        """One epoch of stage 4; gives the mean loss of this server's share."""
        if self._optimizer is None or self._adaptation is None or self._adapted is None:
            raise RuntimeError("adapt_epoch() before start_adaptation()")
        self._model.train()
        with role_threads(self._settings.num_threads):
            return adapt_one_epoch(
                self._adapted,
                self._optimizer,
                self._pool(),
                self._masks,
                self._adaptation,
                epoch,
                torch_generator(self._settings.seed, "adapt_foundation", epoch),
                self._share,
            )

    def start_distillation(self, config: Distillation) -> None:
        """Prepares stage 5 with a fresh optimiser."""
        self._learner = PoolLearner(
            self._decoder(),
            self._pool(),
            self._masks,
            learning_rate=config.foundation_learning_rate,
            config=config,
            device=self._device,
        )
        self._optimizer = self._learner.optimizer

    def start_epoch(self, epoch: int) -> None:
        """See :class:`~dsfedmed_ray.learning.mutual_distillation.Learner`."""
        self._distilling().start_epoch(epoch)

    def pool_logits(self) -> Tensor:
        """Logits of the whole pool, from kept embeddings."""
        with role_threads(self._settings.num_threads):
            return self._distilling().pool_logits()

    def logits_of(self, indices: Tensor) -> Tensor:
        """Logits of one batch of the pool."""
        with role_threads(self._settings.num_threads):
            return self._distilling().logits_of(indices)

    def begin(self, indices: Tensor, *stream: int | str) -> Tensor:
        """See :class:`~dsfedmed_ray.learning.mutual_distillation.Learner`."""
        with role_threads(self._settings.num_threads):
            return self._distilling().begin(indices, *stream)

    def finish(self, other_logits: Tensor, counted: Tensor | None) -> float:
        """See :class:`~dsfedmed_ray.learning.mutual_distillation.Learner`."""
        with role_threads(self._settings.num_threads):
            return self._distilling().finish(other_logits, counted)

    def trainable_state(self) -> State:
        """The trained part, on the CPU."""
        return {name: value.cpu().clone() for name, value in self._model.trainable_state().items()}

    def load_trainable_state(self, state: State) -> None:
        """Loads what :meth:`trainable_state` gave."""
        self._model.load_trainable_state(state)

    def progress_state(self) -> dict[str, Any]:
        """Everything a running stage needs to go on: the trained part and the optimiser."""
        if self._optimizer is None:
            raise RuntimeError("no stage was started")
        # On the CPU: who keeps it may see no GPU.
        return {"model": self.trainable_state(), "optimizer": _on_cpu(self._optimizer.state_dict())}

    def restore_progress(self, content: dict[str, Any]) -> None:
        """Goes on from :meth:`progress_state`, after the stage was started."""
        if self._optimizer is None:
            raise RuntimeError("no stage was started")
        with self._computing():
            self.load_trainable_state(content["model"])
            self._optimizer.load_state_dict(content["optimizer"])

    def evaluate(self, sites: Sequence[str], part: Part) -> dict[str, SegmentationScores]:
        """Scores on real images, site by site; instrumentation, not part of the method."""
        self._model.eval()
        predict: Callable[[Tensor], Tensor] = lambda images: self._model(images.to(self._device))  # noqa: E731
        with self._computing():
            return {
                site: score(
                    predict,
                    self._settings.split.samples(site, part),
                    batch_size=self._settings.score_batch_size,
                )
                for site in sites
            }

    def client_features(
        self, synthetic_folder: Path, clients: Sequence[str]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Features of each client's training images and of synthetic ones in its own style.

        By the model as it is now. Instrumentation, as :meth:`evaluate`.
        """
        self._model.eval()
        synthetic, seed = read_synthetic(synthetic_folder), self._settings.seed
        seen: Callable[[Tensor], Tensor] = lambda images: self._model.features(  # noqa: E731
            images.to(self._device)
        )
        with self._computing():
            return {
                client: (
                    features_of(seen, self._settings.split.samples(client, "train"), seed),
                    features_of(seen, in_own_style(client, synthetic), seed),
                )
                for client in clients
            }

    def inference_time(self) -> InferenceTime:
        """Milliseconds an image."""
        self._model.eval()
        size = self._settings.split.federation.image_size
        with self._computing():
            return measure_inference_ms(self._model, size, device=self._device)

    def _decoder(self) -> "_Decoder":
        return _Decoder(self._model, self._settings.precision, self._device)

    def _pool(self) -> Embeddings:
        if self._embeddings is None:
            raise RuntimeError("open_pool() first")
        return self._embeddings

    def _distilling(self) -> PoolLearner:
        if self._learner is None:
            raise RuntimeError("start_distillation() first")
        return self._learner

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Threads and number format of forward passes; in serial runs roles share the process."""
        with (
            role_threads(self._settings.num_threads),
            arithmetic(self._settings.precision, self._device),
        ):
            yield


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    return [_on_cpu(item) for item in value] if isinstance(value, list) else value


class _Decoder(torch.nn.Module):
    """The trainable part of a foundation model, its forward passes alone in a number format."""

    def __init__(
        self, model: FoundationSegmenter, precision: Precision, device: torch.device
    ) -> None:
        super().__init__()
        self.model = model
        self._arithmetic = partial(arithmetic, precision, device)

    def forward(self, embeddings: Tensor) -> Tensor:
        with self._arithmetic():
            return self.model.decode(embeddings)
