"""Shape families of the procedural images; each draws layers and the mask of its main structure."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Floats = NDArray[np.floating]
Random = np.random.Generator


def smooth_field(random: Random, size: int, scale_px: float, stretch: float = 1.0) -> Floats:
    """A smooth random field of mean 0 and standard deviation 1.

    Args:
        random: the stream.
        size: side, pixels.
        scale_px: distance over which the field changes.
        stretch: elongation of its grain along the columns.
    """
    rows = int(np.clip(size / scale_px * np.sqrt(stretch), 2, size)) + 1
    columns = int(np.clip(size / scale_px / np.sqrt(stretch), 2, size)) + 1
    grid = torch.from_numpy(random.normal(size=(1, 1, rows, columns)).astype(np.float32))
    spread = functional.interpolate(grid, (size, size), mode="bicubic", align_corners=True)
    field = spread[0, 0].numpy()
    normal: Floats = (field - field.mean()) / (field.std() + 1e-6)
    return normal


def many_blobs(random: Random, size: int) -> tuple[Floats, Floats]:
    """Scattered cells, sometimes with kernels inside and unlabelled debris of another size."""
    radius = size * 2.0 ** random.uniform(-5.8, -2.4)
    fill = random.uniform(0.02, 0.45)
    count = int(np.clip(fill * size**2 / (np.pi * radius**2), 1, 90))
    cells = np.zeros((size, size), np.float32)
    kernels = np.zeros_like(cells)
    touching = random.random() < 0.5
    softness = random.uniform(0.7, 1.5)
    for _ in range(count):
        centre = random.uniform(-0.02 * size, 1.02 * size, 2)
        _add_blob(random, cells, centre, radius * random.uniform(0.6, 1.5), softness, touching)
        if random.random() < 0.3:
            inner = centre + random.normal(0, radius * 0.2, 2)
            _add_blob(random, kernels, inner, radius * random.uniform(0.2, 0.5), softness, True)
    layers = [cells]
    if kernels.max() > 0:
        layers.append(np.minimum(kernels, cells))
    if random.random() < 0.4:
        debris = np.zeros_like(cells)
        for _ in range(random.integers(1, 12)):
            centre = random.uniform(0, size, 2)
            _add_blob(random, debris, centre, radius * random.uniform(0.3, 2.5), 1.5, True)
        layers.insert(0, debris * (1 - cells))
    return np.stack(layers), cells


def _add_blob(
    random: Random,
    canvas: Floats,
    centre: Floats,
    radius_px: float,
    softness_px: float,
    touching: bool,
) -> None:
    """Draws one wobbly ellipse into the canvas, in place."""
    radius_px = max(radius_px, 1.0)
    reach = int(radius_px * 2.2) + 3
    top, left = (max(0, int(value) - reach) for value in centre)
    bottom, right = (min(canvas.shape[0], int(value) + reach + 1) for value in centre)
    if bottom <= top or right <= left:
        return
    rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
    soft = _wobbly_disc(random, rows - centre[0], columns - centre[1], radius_px, softness_px)
    window = canvas[top:bottom, left:right]
    if not touching and (window * soft).max() > 0.3:
        return
    np.maximum(window, soft, out=window)


def _wobbly_disc(
    random: Random, rows: Floats, columns: Floats, radius_px: float, softness_px: float
) -> Floats:
    angle = random.uniform(0, np.pi)
    ratio = random.uniform(0.55, 1.0)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = (columns * np.cos(angle) - rows * np.sin(angle)) / ratio
    direction = np.arctan2(across, along)
    border = np.ones_like(rows)
    for order in (2, 3, 4, 5):
        border += random.normal(0, 0.1 / order) * np.cos(order * direction + random.uniform(0, 6.3))
    distance = radius_px * border - np.hypot(along, across)
    soft: Floats = np.clip(distance / softness_px + 0.5, 0, 1)
    return soft


def nested_discs(random: Random, size: int) -> tuple[Floats, Floats]:
    """A disc with an inner disc, sometimes crossed by branching lines and lit by a halo."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    centre = size * random.uniform(0.3, 0.7, 2)
    radius = size * random.uniform(0.1, 0.38)
    rows, columns = rows - centre[0], columns - centre[1]
    warp = radius * random.uniform(0.0, 0.15)
    rows = rows + warp * smooth_field(random, size, size / 4)
    disc = _wobbly_disc(random, rows, columns, radius, random.uniform(1, 4))
    shift = random.normal(0, radius * 0.15, 2)
    cup_radius = radius * random.uniform(0.25, 0.75)
    cup = _wobbly_disc(random, rows - shift[0], columns - shift[1], cup_radius, 2.0) * disc
    layers = [disc, cup] if random.random() < 0.8 else [disc]
    if random.random() < 0.5:
        halo = np.clip(1.6 - np.hypot(rows, columns) / (radius * 1.4), 0, 1) * 0.6
        layers.insert(0, halo)
    if random.random() < 0.6:
        layers.append(_vessels(random, size, centre) * random.uniform(0.4, 1.0))
    mask = cup if len(layers) > 1 and random.random() < 0.25 else disc
    return np.stack(layers), mask


def _vessels(random: Random, size: int, root: Floats) -> Floats:
    """Lines that leave a root, curve, thin out and branch."""
    canvas = np.zeros((size, size), np.float32)
    tips = [
        (root.copy(), random.uniform(0, 2 * np.pi), random.uniform(0.8, 2.6))
        for _ in range(random.integers(3, 8))
    ]
    from scipy import ndimage  # half a second that most processes never need

    budget = 24
    while tips and budget > 0:
        budget -= 1
        place, heading, width = tips.pop(0)
        length = int(size * random.uniform(0.15, 0.6))
        turns = heading + np.cumsum(random.normal(0, 0.06, length))
        path = place + np.cumsum(np.stack([np.sin(turns), np.cos(turns)], axis=1), axis=0)
        points = np.round(path).astype(int)
        inside = ((points >= 0) & (points < size)).all(axis=1)
        rows, columns = points[inside].T
        stroke = np.zeros_like(canvas)
        stroke[rows, columns] = 1
        stroke = ndimage.gaussian_filter(stroke, width / 2)
        np.maximum(canvas, stroke / (stroke.max() + 1e-6), out=canvas)
        if inside.all() and width > 0.8:
            for side in (-1, 1):
                tips.append((path[-1], turns[-1] + side * random.uniform(0.2, 0.8), width * 0.7))
    return canvas


def branches(random: Random, size: int) -> tuple[Floats, Floats]:
    """Branching lines as the main structure."""
    root = random.uniform(0, size, 2)
    lines = np.clip(_vessels(random, size, root) * 1.8, 0, 1)
    return lines[None], lines


def threshold_field(random: Random, size: int) -> tuple[Floats, Floats]:
    """Islands or networks: where a smooth random field is above a level."""
    scale = size * 2.0 ** random.uniform(-4.5, -1.5)
    field = smooth_field(random, size, scale, stretch=2.0 ** random.uniform(-1, 1))
    sharpness = random.uniform(3, 10)
    islands = np.clip((field - random.uniform(-0.3, 1.4)) * sharpness + 0.5, 0, 1)
    if random.random() < 0.3:
        islands = np.clip(1 - np.abs(field) * sharpness / 2 + 0.5, 0, 1)
    return islands[None], islands


def folded_layers(random: Random, size: int) -> tuple[Floats, Floats]:
    """An oval body of nested shells with wavy borders and pockets; one of them is the mask."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    centre = size / 2 + random.normal(0, size / 20, 2)
    radii = size * random.uniform(0.28, 0.5, 2)
    distance = np.hypot((rows - centre[0]) / radii[0], (columns - centre[1]) / radii[1])
    slow = smooth_field(random, size, size / 3)
    fast = smooth_field(random, size, size / random.uniform(8, 22))
    layers: list[Floats] = []
    borders = np.sort(random.uniform(0.2, 0.98, random.integers(2, 5)))[::-1]
    for depth, border in enumerate(borders):
        fold = random.uniform(0.0, 0.14) * min(depth, 1)
        signed = (border - distance + 0.05 * slow + fold * fast) * radii.mean()
        layers.append(np.clip(signed / random.uniform(0.8, 2.5) + 0.5, 0, 1))
    if random.random() < 0.7:
        layers.append(_pockets(random, size, centre, radii) * layers[-1])
    chosen = int(random.integers(0, len(layers)))
    mask = layers[chosen]
    if chosen + 1 < len(layers) and random.random() < 0.6:
        mask = mask * (1 - layers[chosen + 1])
    return np.stack(layers), mask


def _pockets(random: Random, size: int, centre: Floats, radii: Floats) -> Floats:
    """A few curved cavities, often mirrored about the body's axis."""
    canvas = np.zeros((size, size), np.float32)
    mirrored = random.random() < 0.7
    for _ in range(random.integers(1, 4)):
        offset = random.uniform(-0.45, 0.45, 2) * radii
        radius = float(radii.mean()) * random.uniform(0.06, 0.25)
        _add_blob(random, canvas, centre + offset, radius, 1.5, True)
        if mirrored:
            _add_blob(random, canvas, centre + offset * np.array([1, -1]), radius, 1.5, True)
    return canvas


def draw_ellipses(
    random: Random,
    height: int,
    width: int,
    *,
    area: float,
    radius_px: float,
) -> NDArray[np.uint8]:
    """Wobbly ellipses of about one radius until an area is covered.

    Args:
        random: the stream.
        height: rows, pixels.
        width: columns, pixels.
        area: pixels to cover; at least one ellipse is drawn.
        radius_px: mean radius.

    Returns:
        ``uint8 [height, width]`` of 0 and 1.
    """
    canvas = np.zeros((height, width), np.float32)
    radius_px = min(max(radius_px, 1.0), min(height, width) / 2)
    for _ in range(400):
        margin = min(radius_px, min(height, width) / 2 - 1) * random.uniform(0, 1)
        centre = random.uniform(margin, (height - margin, width - margin))
        _add_blob(random, canvas, centre, radius_px * random.uniform(0.75, 1.3), 1.0, False)
        if (canvas > 0.5).sum() >= area * 0.9:
            break
    return (canvas > 0.5).astype(np.uint8)
