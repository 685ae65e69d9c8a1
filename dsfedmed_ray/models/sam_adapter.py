"""SAM with Medical SAM Adapters (Wu et al. 2023, arXiv 2304.12620): adapters and decoder train.

In every adapted block one bottleneck follows the attention, with a skip connection, and one stands
beside the MLP, scaled by a half. Their last layers start at zero, so that an adapted model begins
as the SAM it was made of.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dsfedmed_ray.errors import ConfigurationError
from dsfedmed_ray.models.sam import Architecture, SamConfig
from dsfedmed_ray.models.sam_segmenter import SamSegmenter
from dsfedmed_ray.seeding import named_torch_stream

MLP_ADAPTER_SCALE = 0.5


@dataclass(frozen=True, kw_only=True)
class SamAdapterConfig:
    """SAM with adapters.

    Attributes:
        architecture: as of :class:`SamConfig`.
        input_size: as of :class:`SamConfig`.
        weights: SAM's, as of :class:`SamConfig`; adapters are always new.
        sha256: as of :class:`SamConfig`.
        bottleneck_ratio: an adapter's inner width over the block's (the paper's code: 0.25).
        first_adapted_block: blocks before it have no adapter and are part of the frozen
            embedding; 0, as in the paper, leaves only the patch embedding frozen as a whole.
    """

    architecture: Architecture = "vit_b"
    input_size: int = 1024
    weights: str | None = None
    sha256: str | None = "official"
    bottleneck_ratio: float = 0.25
    first_adapted_block: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.bottleneck_ratio <= 1:
            raise ConfigurationError(
                f"foundation.bottleneck_ratio is {self.bottleneck_ratio}; it must be in (0, 1]"
            )
        self._sam()

    def build(self, *, num_structures: int, image_size: int, seed: int) -> SamSegmenter:
        """Builds SAM, loads its weights and inserts the adapters.

        Raises:
            CheckpointError: the weights are missing or do not fit.
            ConfigurationError: there are more structures than mask tokens, or fewer blocks than
                ``first_adapted_block``.
        """
        model = self._sam().build(num_structures=num_structures, image_size=image_size, seed=seed)
        with named_torch_stream(seed, "initialise", "sam_adapter"):
            insert_adapters(
                model,
                bottleneck_ratio=self.bottleneck_ratio,
                first_adapted_block=self.first_adapted_block,
            )
        return model

    def _sam(self) -> SamConfig:
        return SamConfig(
            architecture=self.architecture,
            input_size=self.input_size,
            trainable="decoder",
            weights=self.weights,
            sha256=self.sha256,
        )


class Adapter(nn.Sequential):
    """A bottleneck: narrow, GELU, widen."""

    def __init__(self, width: int, bottleneck_ratio: float) -> None:
        inner = max(1, int(width * bottleneck_ratio))
        super().__init__(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        for value in self[2].parameters():
            nn.init.zeros_(value)


class AdaptedAttention(nn.Module):
    """Attention, then an adapter with a skip connection."""

    def __init__(self, attention: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.attention = attention
        self.adapter = adapter

    def forward(self, x: Float[Tensor, "*windows width"]) -> Float[Tensor, "*windows width"]:
        """Keeps the shape."""
        attended: Tensor = self.attention(x)
        return attended + self.adapter(attended)


class AdaptedMlp(nn.Module):
    """An MLP and, beside it, a scaled adapter."""

    def __init__(self, mlp: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.mlp = mlp
        self.adapter = adapter

    def forward(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        """Keeps the shape."""
        mapped: Tensor = self.mlp(x)
        return mapped + MLP_ADAPTER_SCALE * self.adapter(x)


def insert_adapters(
    model: SamSegmenter, *, bottleneck_ratio: float, first_adapted_block: int
) -> None:
    """Inserts adapters into a frozen encoder; its embedding then ends before the first of them.

    Raises:
        ConfigurationError: the encoder has no block ``first_adapted_block``.
    """
    blocks: Any = model.image_encoder.blocks
    if not 0 <= first_adapted_block < len(blocks):
        raise ConfigurationError(
            f"foundation.first_adapted_block is {first_adapted_block}; "
            f"this encoder has blocks 0 to {len(blocks) - 1}"
        )
    for block in blocks[first_adapted_block:]:
        width = block.norm1.weight.shape[0]
        block.attn = AdaptedAttention(block.attn, Adapter(width, bottleneck_ratio))
        block.mlp = AdaptedMlp(block.mlp, Adapter(width, bottleneck_ratio))
    model.first_trainable_stage = 1 + first_adapted_block
