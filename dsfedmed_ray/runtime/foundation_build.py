"""A foundation model for a federation: built, and checked before a run starts."""

import torch

from dsfedmed_ray.data.splits import SplitFederation
from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.segmenter import FoundationSegmenter, SegmenterConfig


def build_foundation(
    config: SegmenterConfig, split: SplitFederation, seed: int
) -> FoundationSegmenter:
    """Builds a foundation model for a federation.

    Raises:
        CheckpointError: the weights are missing, of another hash or of other shapes.
        ConfigurationError: the model does not fit the federation, or has no frozen part.
    """
    model = config.build(
        num_structures=len(split.federation.structures),
        image_size=split.federation.image_size,
        seed=seed,
    )
    if not isinstance(model, FoundationSegmenter):
        raise ConfigurationError(
            f"foundation is {type(model).__name__}, which has no frozen part to embed with; "
            "choose a foundation model of conf/foundation"
        )
    return model


def check_foundation(
    config: SegmenterConfig, split: SplitFederation, seed: int, *, num_workers: int = 1
) -> None:
    """Builds a foundation model's shapes, without its weights' memory, and reads its file's.

    Raises:
        CheckpointError: the weights are missing, of another hash or of other shapes.
        ConfigurationError: the model does not fit the federation, has no frozen part, or several
            workers cannot share its adaptation.
    """
    with torch.device("meta"):
        model = build_foundation(config, split, seed)
    if num_workers > 1:
        _check_shareable(model.train())


def _check_shareable(model: FoundationSegmenter) -> None:
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.training:
            raise ConfigurationError(
                f"{name} of the foundation model counts statistics of whole batches, which "
                "foundation.num_workers > 1 divides; set foundation.fixed_statistics=true, train "
                "less of it with foundation.trainable, or use one worker"
            )
