"""The interface of every segmentation model, lightweight or foundation.

A model's configuration is a frozen dataclass that builds the model; it is what crosses processes
and enters stage keys. The model itself is an ``nn.Module`` with two additions: which part of its
state is trained (and therefore travels), and, for foundation models, where its frozen part ends.
"""

import math
from abc import ABC, abstractmethod
from typing import Protocol

from jaxtyping import Float
from torch import Tensor, nn

from dsfedmed_ray.errors import CheckpointError, ConfigurationError

State = dict[str, Tensor]


class SegmenterConfig(Protocol):
    """Builds a segmenter; implementations are frozen dataclasses named by ``_target_`` in YAML."""

    def build(self, *, num_structures: int, image_size: int, seed: int) -> "Segmenter":
        """Builds the model on the CPU, in float32.

        Args:
            num_structures: mask channels.
            image_size: side of the square input images, pixels.
            seed: seeds the initialisation of layers that are not loaded.
        """
        ...


class Segmenter(nn.Module, ABC):
    """Maps images to one logit map per structure, at the images' own size.

    Inputs are images in [0, 1]; each model scales them as its weights expect.
    """

    @abstractmethod
    def forward(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch structures size size"]:
        """Logits; ``sigmoid`` gives each structure's probability."""

    def trainable_state(self) -> State:
        """The part of the state that training changes, in the order of ``state_dict``.

        This is what travels and what is averaged: trainable parameters, and the buffers (such as
        BatchNorm's) of modules that own a trainable parameter.
        """
        names = self._trainable_names()
        return {name: value for name, value in self.state_dict().items() if name in names}

    def load_trainable_state(self, state: State) -> None:
        """Loads what :meth:`trainable_state` gave.

        Raises:
            CheckpointError: a key is missing or unknown, or a shape differs; nothing is loaded.
        """
        own = self.trainable_state()
        check_same_layout(own, state, what=type(self).__name__)
        for name, value in own.items():
            value.copy_(state[name])

    def _trainable_names(self) -> set[str]:
        names = set()
        for prefix, module in self.named_modules():
            own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
            if not any(own):
                continue
            start = f"{prefix}." if prefix else ""
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad:
                    names.add(start + name)
            names.update(start + name for name, _ in module.named_buffers(recurse=False))
        return names & set(self.state_dict())


class FoundationSegmenter(Segmenter):
    """A segmenter with a frozen first part whose outputs can be computed once and kept.

    ``forward(images) == decode(embed(images))``. Everything in :meth:`embed` is frozen and runs in
    evaluation mode without gradients; everything trainable is in :meth:`decode`.
    """

    @abstractmethod
    def embed(self, images: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch ..."]:
        """The frozen part."""

    @abstractmethod
    def decode(
        self, embeddings: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch structures size size"]:
        """The trainable part, from embeddings to logits at the images' size."""

    @abstractmethod
    def features(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch channels"]:
        """What the whole encoder sees in each image, mean over positions, without gradients."""

    @abstractmethod
    def shift_logits(self, shift: Float[Tensor, " structures"]) -> None:
        """Adds a constant to each structure's logits from now on; a part of what travels."""

    @abstractmethod
    def frozen_fingerprint(self) -> str:
        """Identifies the frozen part (weights and input size); the key of stored embeddings."""

    def forward(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch structures size size"]:
        """Logits at the images' size."""
        return self.decode(self.embed(images))


def check_same_layout(own: State, given: State, *, what: str) -> None:
    """Checks that two states have the same keys and shapes.

    Raises:
        CheckpointError: names the first difference.
    """
    missing = sorted(own.keys() - given.keys())
    unknown = sorted(given.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(
            f"state does not fit {what}: {len(missing)} missing keys {missing[:3]}, "
            f"{len(unknown)} unknown keys {unknown[:3]}; use weights of the same architecture"
        )
    for name, value in own.items():
        if value.shape != given[name].shape:
            raise CheckpointError(
                f"state does not fit {what}: {name} has shape {tuple(given[name].shape)}, "
                f"expected {tuple(value.shape)}; use weights of the same architecture"
            )


def check_prior(foreground_prior: float) -> None:
    """Refuses a probability of foreground that is none.

    Raises:
        ConfigurationError: it is not between 0 and 1.
    """
    if not 0.0 < foreground_prior < 1.0:
        raise ConfigurationError(
            f"lightweight.foreground_prior is {foreground_prior}; allowed: between 0 and 1"
        )


def logit_of(probability: float) -> float:
    """The logit whose sigmoid is ``probability``, which lies between 0 and 1."""
    return math.log(probability / (1.0 - probability))
