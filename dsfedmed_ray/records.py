"""Frozen values that cross floors. Nothing here computes."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]
"""An image, ``uint8 [height, width, 3]``, stretched per image to the full range 0-255."""
MaskArray = NDArray[np.uint8]
"""A mask, ``uint8 [height, width, structures]`` of 0 and 1."""

Direction = Literal["uplink", "downlink"]
MaskOrigin = Literal["client", "perturbed", "procedural"]
StyleOrigin = Literal["client", "shifted"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its mask.

    Attributes:
        sample_id: unique within its site.
        image: ``uint8 [height, width, 3]``.
        mask: ``uint8 [height, width, structures]`` of 0 and 1.
    """

    sample_id: str
    image: ImageArray
    mask: MaskArray


@dataclass(frozen=True, kw_only=True)
class SyntheticSample(Sample):
    """One generated image with the mask it was generated from.

    Attributes:
        client: name of the client whose ControlNet drew the image.
        mask_origin: where the mask came from.
        style_origin: ``"client"``: drawn to look like the client's images. ``"shifted"``: in a
            contrast that the client does not have.
        seed: the seed of the generation job.
    """

    client: str
    mask_origin: MaskOrigin
    style_origin: StyleOrigin
    seed: int


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One payload that crossed between server and a client; a line of ``transfers.jsonl``.

    Attributes:
        client: name of the client.
        direction: ``"uplink"`` is client to server, ``"downlink"`` server to client.
        stage: the stage that sent it, for example ``"train_federated"``.
        what: the payload, for example ``"state"`` or ``"controlnet"``.
        num_bytes: serialised size.
        round_index: the round, from 0; None outside rounds.
    """

    client: str
    direction: Direction
    stage: str
    what: str
    num_bytes: int
    round_index: int | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """Mean scores over the images of one site.

    Attributes:
        dice: in [0, 1].
        iou: in [0, 1].
        hd95_px: 95th percentile of the Hausdorff distance, pixels.
        num_images: images scored.
    """

    dice: float
    iou: float
    hd95_px: float
    num_images: int


@dataclass(frozen=True, kw_only=True)
class ProgressRecord:
    """One line of ``rounds.jsonl``: a round of federated training or an epoch of a server stage.

    Attributes:
        stage: the stage.
        index: round or epoch, from 0.
        total: planned rounds or epochs; fewer may run where patience stops them.
        seconds: wall time of the unit.
        values: finite numbers by name, for example ``validation_dice``.
    """

    stage: str
    index: int
    total: int
    seconds: float
    values: dict[str, float] = field(default_factory=dict)
