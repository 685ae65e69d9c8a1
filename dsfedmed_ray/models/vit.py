"""SAM's ViT encoder, divided into stages and usable at sizes it was not trained for."""

from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

PATCH_SIZE = 16


class StagedViT(nn.Module):
    """Segment-anything's ``ImageEncoderViT``, its parts and parameter names unchanged.

    Stages: patch embedding with positions, each block, the neck. The state keeps the released
    layout at any input size: absolute positions are interpolated to the grid on the way (bicubic),
    relative ones by the blocks themselves (linear, as segment-anything does), and windows that the
    grid does not fill are padded. At the released size all of this does nothing.

    Args:
        encoder: whose parts are taken over.
        grid_size: side of the grid that images will have.

    Attributes:
        grid_size: side of the embedding.
        num_stages: the number of blocks and two.
        last_stage: the stage after the last but one block with global attention.
    """

    def __init__(self, encoder: Any, grid_size: int) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.patch_embed = encoder.patch_embed
        self.pos_embed: nn.Parameter = encoder.pos_embed
        self.blocks: nn.ModuleList = encoder.blocks
        self.neck = encoder.neck
        self.num_stages = len(self.blocks) + 2
        ends = [index + 1 for index, block in enumerate(encoder.blocks) if block.window_size == 0]
        self.last_stage = 1 + (ends[-2] if len(ends) > 1 else len(self.blocks) - 1)

    def run_stages(self, x: Tensor, first: int, last: int) -> Tensor:
        """Applies the stages ``first <= i < last`` to what the stage before ``first`` gave."""
        for index in range(first, last):
            if index == 0:
                x = self._positioned_patches(x)
            elif index <= len(self.blocks):
                x = self.blocks[index - 1](x)
            else:
                x = self.neck(x.permute(0, 3, 1, 2))
        return x

    def stage_parameters(self, index: int) -> list[nn.Parameter]:
        """The parameters of one stage."""
        if index == 0:
            return [self.pos_embed, *self.patch_embed.parameters()]
        part = self.blocks[index - 1] if index <= len(self.blocks) else self.neck
        return list(part.parameters())

    def forward(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch 256 grid grid"]:
        """The embedding of images scaled as the weights expect."""
        return self.run_stages(images, 0, self.num_stages)

    def _positioned_patches(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch grid grid width"]:
        patches: Tensor = self.patch_embed(images)
        return patches + resize_positions(self.pos_embed, patches.shape[1])


def resize_positions(
    positions: Float[Tensor, "1 old old width"], grid_size: int
) -> Float[Tensor, "1 new new width"]:
    """Interpolates learned absolute positions to another grid."""
    if positions.shape[1] == grid_size:
        return positions
    resized = functional.interpolate(
        positions.permute(0, 3, 1, 2),
        (grid_size, grid_size),
        mode="bicubic",
        align_corners=False,
    )
    return resized.permute(0, 2, 3, 1)


def toy_encoder() -> nn.Module:
    """Segment-anything's ViT for 1024 pixels with four blocks of width 16, for tests."""
    from segment_anything.modeling import ImageEncoderViT

    encoder: nn.Module = ImageEncoderViT(
        img_size=1024,
        embed_dim=16,
        depth=4,
        num_heads=1,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1, 3),
    )
    return encoder
