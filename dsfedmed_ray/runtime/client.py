"""A hospital's own code: everything that touches private pairs. A plain class, no Ray."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.data.cache import BoundedCache
from dsfedmed_ray.data.federation import Part
from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.data.synthetic_samples import in_own_style, read_synthetic
from dsfedmed_ray.evaluation.evaluator import Predict, score
from dsfedmed_ray.evaluation.synthesis_quality import ClientQuality, measure_client
from dsfedmed_ray.learning.aggregation import FlatState
from dsfedmed_ray.learning.generator_training import tune_generator
from dsfedmed_ray.learning.generator_upload import GeneratorUpload
from dsfedmed_ray.learning.image_generation import GenerationJob, paint_job
from dsfedmed_ray.learning.segmentation_training import (
    Pairs,
    make_optimizer,
    train_on_pairs,
)
from dsfedmed_ray.learning.wire import WireDtype, from_wire, to_wire
from dsfedmed_ray.models.generator import Generator
from dsfedmed_ray.models.nnunet import fingerprint_of
from dsfedmed_ray.models.segmenter import SegmenterConfig
from dsfedmed_ray.records import Sample
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.client_state import ClientFiles
from dsfedmed_ray.runtime.devices import role_device
from dsfedmed_ray.runtime.local_training import LocalTraining
from dsfedmed_ray.runtime.memory import returning_memory
from dsfedmed_ray.runtime.resident_segmenter import ResidentSegmenter
from dsfedmed_ray.runtime.served_share import ServedDistillation, ServedShare, distil_share
from dsfedmed_ray.seeding import derive_seed, named_torch_stream, torch_generator

_CACHED_PAIR_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class HospitalBuilder:
    """Builds a :class:`Hospital` inside a worker.

    Attributes:
        split: sites and parts.
        model: the model that is federated.
        local: what a round asks of a client.
        seed: the run's seed.
        state_folder: where client state lives between rounds.
        generator: configuration of the diffusion backbone, for methods with synthesis.
        wire_dtype: number format in which the client's state travels.
        num_gpus: the worker's share of a GPU.
        batch_size: images a forward pass when a state is validated.
        num_states_kept: rounds of which a client's own state is kept, so that a resumed run finds
            the state before its first round; a run goes at most two checkpoints back.
    """

    split: SplitFederation
    model: SegmenterConfig
    local: LocalTraining
    seed: int
    state_folder: Path
    generator: Any = None
    wire_dtype: WireDtype = "float32"
    num_gpus: float = 0.0
    batch_size: int = 16
    num_states_kept: int = 3

    def __call__(self) -> "Hospital":
        """The program."""
        return Hospital(self)


class Hospital:
    """Serves one client after the other with one resident model."""

    def __init__(self, settings: HospitalBuilder) -> None:
        self._settings = settings
        self._device = role_device(settings.num_gpus)
        self._pairs: BoundedCache[int, Pairs] = BoundedCache(
            _CACHED_PAIR_BYTES, lambda pairs: pairs.images.nbytes + pairs.masks.nbytes
        )
        self._shares: dict[int, ServedShare] = {}  # of the last client alone

    @cached_property
    def _resident(self) -> ResidentSegmenter:
        federation = self._settings.split.federation
        model = self._settings.model.build(
            num_structures=len(federation.structures),
            image_size=federation.image_size,
            seed=self._settings.seed,
        )
        model.to(self._device)
        return ResidentSegmenter(model, self._settings.local.kept_entries(model))

    @cached_property
    def _state_bytes(self) -> int:
        # The size of a state does not depend on its values, so it is measured once.
        state = self._resident.shared.read()
        return payload_bytes(to_wire(state, state, self._settings.wire_dtype))

    @cached_property
    def _generator(self) -> Generator:
        # Resident, since a pool's worker tunes for many clients; each starts from the public state.
        generator: Generator = self._settings.generator.build(device=str(self._device))
        return generator

    def client_name(self, client_id: int) -> str:
        """The site's name."""
        return self._settings.split.client_name(client_id)

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        """Trains the broadcast state on the client's training pairs, or distils it."""
        if order.distillation is not None:
            return self._distilled(client_id, broadcast, order, order.distillation)
        local = self._settings.local
        training = local.in_round(order.round_index)
        self._resident.shared.load(broadcast)
        self._resident.kept.load(self._own_kept(client_id, before=order.round_index))
        optimizer = make_optimizer(self._resident.model, training)
        if local.optimizer_state == "keep":
            self._load_optimizer(optimizer, client_id, order)
        pairs = self._train_pairs(client_id)
        name = (self._settings.seed, order.stage, order.round_index, client_id)
        with named_torch_stream(*name, "layers"):
            loss = train_on_pairs(
                self._resident.model,
                optimizer,
                pairs,
                training,
                torch_generator(*name, "batches"),
            )
        if local.optimizer_state == "keep":
            files = self._optimizers(order.stage)
            files.save(client_id, order.round_index, optimizer.state_dict())
        if local.norm_policy == "local":
            self._save_kept(client_id, order.round_index)
        sent = to_wire(self._resident.shared.read(), broadcast, self._settings.wire_dtype)
        return FitResult(
            state=from_wire(sent, broadcast),
            num_samples=len(pairs),
            metrics={"loss": loss},
            num_uplink_bytes=self._state_bytes + payload_bytes((len(pairs), loss)),
        )

    def _distilled(
        self, client_id: int, broadcast: FlatState, order: FitOrder, served: ServedDistillation
    ) -> FitResult:
        """One epoch on the client's share of the synthetic set."""
        if client_id not in self._shares:
            self._shares = {client_id: ServedShare.of(served, self.client_name(client_id))}
        self._resident.load_whole(broadcast)
        name = (self._settings.seed, order.stage, order.round_index, client_id)
        share, model = self._shares[client_id], self._resident.model
        loss, num_samples = distil_share(model, share, served, self._device, *name)
        state = self._resident.read_whole()
        return FitResult(
            state=state,
            num_samples=num_samples,
            metrics={"loss": loss},
            num_uplink_bytes=payload_bytes((state, num_samples, loss)),
        )

    def fingerprint(self, client_id: int) -> NDArray[np.float64]:
        """Aggregate statistics of the client's training pairs, five numbers to plan a model."""
        samples = self._settings.split.samples(self.client_name(client_id), "train")
        return fingerprint_of(samples).to_array()

    @returning_memory()
    def tune_generator(self, client_id: int) -> GeneratorUpload:
        """Fine-tunes a ControlNet on the client's training pairs (stage 1)."""
        name = self.client_name(client_id)
        return tune_generator(
            self._generator,
            self._settings.split.samples(name, "train"),
            seed=derive_seed(self._settings.seed, "tune_generators", name),
        )

    @returning_memory()
    def measure_synthesis(
        self, client_id: int, synthetic: Path, jobs: Sequence[GenerationJob], fit_steps: int
    ) -> ClientQuality:
        """Compares the client's synthetic samples with its private pairs.

        Samples in shifted styles are not meant to look like its images and are left out.

        Args:
            client_id: the client.
            synthetic: folder of the synthetic set.
            jobs: all generation jobs, to paint the floor from; empty leaves the floor out.
            fit_steps: steps of each small segmenter.
        """
        name = self.client_name(client_id)
        own = [job for job in jobs if job.client == name]
        return measure_client(
            train=self._settings.split.samples(name, "train"),
            validation=self._settings.split.samples(name, "validation"),
            synthetic=in_own_style(name, read_synthetic(synthetic)),
            painted=in_own_style(name, [s for job in own for s in paint_job(self._generator, job)]),
            fit=lambda samples: self._fitted(samples, fit_steps),
            seed=self._settings.seed,
        )

    def _fitted(self, samples: Sequence[Sample], steps: int) -> Predict:
        federation = self._settings.split.federation
        training = replace(self._settings.local.training, steps=steps)
        model = self._settings.model.build(
            num_structures=len(federation.structures),
            image_size=federation.image_size,
            seed=self._settings.seed,
        ).to(self._device)
        name = (self._settings.seed, "measure_synthesis")
        with named_torch_stream(*name, "layers"):
            pairs = Pairs.of(samples, self._device)
            optimizer = make_optimizer(model, training)
            train_on_pairs(model, optimizer, pairs, training, torch_generator(*name, "batches"))
        model.eval()
        return lambda images: model(images.to(self._device))

    def evaluate(self, client_id: int, state: FlatState, part: Part) -> float:
        """Mean Dice of a whole state on a part of the client's own pairs."""
        self._resident.load_whole(state)
        return self._dice(client_id, part)

    def evaluate_own(self, client_id: int, state: FlatState, part: Part, round_index: int) -> float:
        """Mean Dice of a broadcast state joined with what the client kept, after a round."""
        self._resident.shared.load(state)
        self._resident.kept.load(self._own_kept(client_id, before=round_index + 1))
        return self._dice(client_id, part)

    def kept_state(self, client_id: int, round_index: int) -> FlatState:
        """What the client kept after a round; asked for once, when the rounds are over."""
        return self._own_kept(client_id, before=round_index + 1)

    def _dice(self, client_id: int, part: Part) -> float:
        model = self._resident.model
        model.eval()
        samples = self._settings.split.samples(self.client_name(client_id), part)
        scores = score(
            lambda images: model(images.to(self._device)),
            samples,
            batch_size=self._settings.batch_size,
            with_hd95=False,
        )
        return scores.dice

    def _train_pairs(self, client_id: int) -> Pairs:
        """The client's decoded training pairs, from a cache bounded in bytes."""
        split, name = self._settings.split, self.client_name(client_id)
        return self._pairs.get(
            client_id, lambda: Pairs.of(split.samples(name, "train"), self._device)
        )

    def _optimizers(self, stage: str) -> ClientFiles:
        settings = self._settings
        return ClientFiles(
            folder=settings.state_folder / stage,
            kind="optimizer",
            num_kept=settings.num_states_kept,
        )

    def _load_optimizer(self, optimizer: Optimizer, client_id: int, order: FitOrder) -> None:
        saved = self._optimizers(order.stage).newest(client_id, before=order.round_index)
        if saved is not None:
            rate = optimizer.param_groups[0]["lr"]  # of this round, not of the saved one
            optimizer.load_state_dict(saved)
            optimizer.param_groups[0]["lr"] = rate

    @cached_property
    def _kept_files(self) -> ClientFiles:
        # All rounds are kept: a file holds a few numbers a layer, and the rounds end with those
        # that belong to the best of them.
        return ClientFiles(folder=self._settings.state_folder, kind="kept", num_kept=None)

    def _own_kept(self, client_id: int, *, before: int) -> FlatState:
        if self._settings.local.norm_policy == "average":
            return self._resident.initial_kept
        saved = self._kept_files.newest(client_id, before=before)
        if saved is None:
            return self._resident.initial_kept
        return FlatState(values=saved["values"].numpy(), counters=saved["counters"].numpy())

    def _save_kept(self, client_id: int, round_index: int) -> None:
        kept = self._resident.kept.read()
        content = {"values": torch.tensor(kept.values), "counters": torch.tensor(kept.counters)}
        self._kept_files.save(client_id, round_index, content)
