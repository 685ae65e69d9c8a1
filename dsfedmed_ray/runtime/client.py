"""A hospital's own code: everything that touches private pairs. A plain class, no Ray."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from dsfedmed_ray.accounting.communication import payload_bytes
from dsfedmed_ray.data.federation import Part
from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.data.synthetic_samples import read_synthetic
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.evaluation.evaluator import Predict, score
from dsfedmed_ray.evaluation.synthesis_quality import ClientQuality, measure_client
from dsfedmed_ray.learning.aggregation import FlatState, ResidentModel
from dsfedmed_ray.learning.generator_training import tune_generator
from dsfedmed_ray.learning.generator_upload import GeneratorUpload
from dsfedmed_ray.learning.image_generation import GenerationJob, paint_job
from dsfedmed_ray.learning.segmentation_training import (
    Pairs,
    SegmentationTraining,
    make_optimizer,
    train_on_pairs,
)
from dsfedmed_ray.models.generator import Generator
from dsfedmed_ray.models.segmenter import SegmenterConfig
from dsfedmed_ray.records import Sample
from dsfedmed_ray.run_directory import write_atomically
from dsfedmed_ray.runtime.checkpoints import save_tensors
from dsfedmed_ray.runtime.client_program import FitOrder, FitResult
from dsfedmed_ray.runtime.devices import role_device
from dsfedmed_ray.seeding import derive_seed, named_torch_stream, torch_generator

OptimizerState = Literal["reset", "keep"]

_CACHED_PAIR_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """What a client does in a round.

    Attributes:
        training: schedule and loss (authors: one local epoch a round).
        optimizer_state: ``reset`` starts each round with a fresh optimiser; ``keep`` goes on with
            the client's own from its last round (authors), kept on the client's disk.
        rate_decay: factor of the learning rate from round to round, in (0, 1] (authors: 1). With a
            constant rate the average of few clients swings from round to round.
    """

    training: SegmentationTraining
    optimizer_state: OptimizerState = "reset"
    rate_decay: float = 0.98

    def __post_init__(self) -> None:
        if not 0 < self.rate_decay <= 1:
            raise ConfigurationError(
                f"method.federated.local.rate_decay is {self.rate_decay}; allowed: above 0 up to 1 "
                "(1 keeps the learning rate)"
            )
        if self.optimizer_state not in ("reset", "keep"):
            raise ConfigurationError(
                f"method.federated.local.optimizer_state is {self.optimizer_state!r}; "
                "allowed: reset, keep"
            )

    def in_round(self, round_index: int) -> SegmentationTraining:
        """The training of a round, its learning rate decayed."""
        rate = self.training.learning_rate * self.rate_decay**round_index
        return replace(self.training, learning_rate=rate)


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
        self._pairs: OrderedDict[int, Pairs] = OrderedDict()

    @cached_property
    def _resident(self) -> ResidentModel:
        federation = self._settings.split.federation
        model = self._settings.model.build(
            num_structures=len(federation.structures),
            image_size=federation.image_size,
            seed=self._settings.seed,
        )
        model.to(self._device)
        return ResidentModel(model, tuple(model.trainable_state()))

    @cached_property
    def _uplink_bytes(self) -> int:
        # The size of a state does not depend on its values, so it is measured once.
        return payload_bytes(self._resident.read())

    @cached_property
    def _generator(self) -> Generator:
        # Resident, since a pool's worker tunes for many clients; each starts from the public state.
        generator: Generator = self._settings.generator.build(device=str(self._device))
        return generator

    def client_name(self, client_id: int) -> str:
        """The site's name."""
        return self._settings.split.client_name(client_id)

    def fit(self, client_id: int, broadcast: FlatState, order: FitOrder) -> FitResult:
        """Trains the broadcast state on the client's training pairs (stage 3)."""
        training = self._settings.local.in_round(order.round_index)
        self._resident.load(broadcast)
        optimizer = make_optimizer(self._resident.model, training)
        if self._settings.local.optimizer_state == "keep":
            self._load_optimizer(optimizer, client_id, order.round_index)
        pairs = self._train_pairs(client_id)
        name = (self._settings.seed, "train_federated", order.round_index, client_id)
        with named_torch_stream(*name, "layers"):
            loss = train_on_pairs(
                self._resident.model, optimizer, pairs, training, torch_generator(*name, "batches")
            )
        if self._settings.local.optimizer_state == "keep":
            self._save_optimizer(optimizer, client_id, order.round_index)
        return FitResult(
            state=self._resident.read(),
            num_samples=len(pairs),
            metrics={"loss": loss},
            num_uplink_bytes=self._uplink_bytes,
        )

    def tune_generator(self, client_id: int) -> GeneratorUpload:
        """Fine-tunes a ControlNet on the client's training pairs (stage 1)."""
        return tune_generator(
            self._generator,
            self._settings.split.samples(self.client_name(client_id), "train"),
            seed=derive_seed(self._settings.seed, "tune_generators", client_id),
        )

    def measure_synthesis(
        self, client_id: int, synthetic: Path, jobs: Sequence[GenerationJob], fit_steps: int
    ) -> ClientQuality:
        """Compares the client's synthetic samples with its private pairs.

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
            synthetic=[sample for sample in read_synthetic(synthetic) if sample.client == name],
            painted=[sample for job in own for sample in paint_job(self._generator, job)],
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
        """Mean Dice of a state on a part of the client's own pairs."""
        self._resident.load(state)
        self._resident.model.eval()
        site = self.client_name(client_id)
        samples = self._settings.split.samples(site, part)
        scores = score(
            lambda images: self._resident.model(images.to(self._device)),
            samples,
            batch_size=self._settings.batch_size,
            with_hd95=False,
        )
        return scores.dice

    def _train_pairs(self, client_id: int) -> Pairs:
        """The client's decoded training pairs, from a cache bounded in bytes."""
        if client_id not in self._pairs:
            site = self.client_name(client_id)
            self._pairs[client_id] = Pairs.of(
                self._settings.split.samples(site, "train"), self._device
            )
            total = sum(pairs.images.nbytes + pairs.masks.nbytes for pairs in self._pairs.values())
            while total > _CACHED_PAIR_BYTES and len(self._pairs) > 1:
                _, oldest = self._pairs.popitem(last=False)
                total -= oldest.images.nbytes + oldest.masks.nbytes
        self._pairs.move_to_end(client_id)
        return self._pairs[client_id]

    def _states(self, client_id: int) -> list[tuple[int, Path]]:
        """The client's saved states by round, newest first."""
        folder = self._settings.state_folder / f"{client_id:07d}"
        found = [
            (int(path.stem.removeprefix("round-")), path) for path in folder.glob("round-*.pt")
        ]
        return sorted(found, reverse=True)

    def _load_optimizer(self, optimizer: Optimizer, client_id: int, round_index: int) -> None:
        # A round done again after a failure must start from the round before, not from its own end.
        for saved_round, path in self._states(client_id):
            if saved_round < round_index:
                rate = optimizer.param_groups[0]["lr"]  # of this round, not of the saved one
                optimizer.load_state_dict(torch.load(path, weights_only=True))
                optimizer.param_groups[0]["lr"] = rate
                return

    def _save_optimizer(self, optimizer: Optimizer, client_id: int, round_index: int) -> None:
        folder = self._settings.state_folder / f"{client_id:07d}"
        state = optimizer.state_dict()
        path = folder / f"round-{round_index:06d}.pt"
        write_atomically(path, lambda temporary: save_tensors(state, temporary))
        # What a run wrote beyond the checkpoint that it now goes on from is not the newest state.
        states = self._states(client_id)
        later = [file for number, file in states if number > round_index]
        before = [file for number, file in states if number <= round_index]
        for old in later + before[self._settings.num_states_kept :]:
            old.unlink(missing_ok=True)
