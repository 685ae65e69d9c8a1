"""The picture ``figures/synthetic.png``: for each client masks, real and synthetic images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsfedmed_ray.records import ImageArray, MaskArray, Sample, SyntheticSample
from dsfedmed_ray.run_directory import write_atomically

ROWS = ("mask", "real", "mask of synthetic", "synthetic")
SHIFTED_ROW = "in other styles"
GAP_PX = 2


@dataclass(frozen=True, kw_only=True)
class ClientImages:
    """What is shown of one client.

    Attributes:
        real: private pairs; the simulator shows them, a hospital would not.
        synthetic: pairs drawn by its generator.
    """

    real: Sequence[Sample]
    synthetic: Sequence[SyntheticSample]

    @property
    def own(self) -> list[SyntheticSample]:
        """Synthetic samples in the client's own style."""
        return [sample for sample in self.synthetic if sample.style_origin == "client"]

    @property
    def shifted(self) -> list[SyntheticSample]:
        """Synthetic samples in styles that the client does not have."""
        return [sample for sample in self.synthetic if sample.style_origin == "shifted"]


def draw_synthetic(clients: Mapping[str, ClientImages], path: Path, *, columns: int = 4) -> None:
    """Draws one block a client, its rows as :data:`ROWS` names them, and one for shifted styles.

    Args:
        clients: by name.
        path: of the PNG file.
        columns: images a client.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shifted = any(images.shifted for images in clients.values())
    labels = [*ROWS, SHIFTED_ROW] if shifted else list(ROWS)
    width = 1.05 * columns
    layout = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.02, wspace=0.02, hspace=0)
    figure = Figure(figsize=(width * len(clients) + 0.3, 1.05 * len(labels) + 0.4), layout=layout)
    panels = figure.subplots(1, len(clients), squeeze=False)[0]
    for panel, (name, images) in zip(panels, clients.items(), strict=True):
        block = client_block(images, columns, with_shifted=shifted)
        panel.imshow(block, interpolation="nearest")
        panel.set_title(name, fontsize=8, loc="left")
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    height = block.shape[0] / len(labels)
    panels[0].set_yticks([(row + 0.5) * height for row in range(len(labels))], labels, fontsize=7)
    panels[0].tick_params(length=0)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def client_block(images: ClientImages, columns: int, *, with_shifted: bool) -> NDArray[np.uint8]:
    """The rows of one client as one image; missing columns stay white."""
    rows = [
        [mask_image(sample.mask) for sample in images.real[:columns]],
        [sample.image for sample in images.real[:columns]],
        [mask_image(sample.mask) for sample in images.own[:columns]],
        [sample.image for sample in images.own[:columns]],
    ]
    if with_shifted:
        rows.append([sample.image for sample in images.shifted[:columns]])
    height, width = rows[0][0].shape[:2]
    shape = (len(rows) * (height + GAP_PX), columns * (width + GAP_PX), 3)
    block = np.full(shape, 255, np.uint8)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            top, left = row * (height + GAP_PX), column * (width + GAP_PX)
            block[top : top + height, left : left + width] = tile
    return block


def mask_image(mask: MaskArray) -> ImageArray:
    """Structures as grey levels, later ones brighter."""
    count = mask.shape[2]
    levels = np.arange(1, count + 1) * (255 // count)
    grey = (mask * levels).max(axis=2).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
