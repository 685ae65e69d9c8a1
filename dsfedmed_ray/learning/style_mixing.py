"""Style diversity: contrasts and colours that no single client has.

Only the server, which holds every client's style tokens, can draw such images; they are what lets
distillation gain on a site that nobody has seen.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dsfedmed_ray.models.painting import (
    AREA,
    CHROMA,
    COARSE,
    DEVIATION,
    FAR,
    FINE,
    FIRST_STRUCTURE,
    MEAN,
    NEAR,
    NUM_FEATURES,
    STD,
    WHOLE,
)
from dsfedmed_ray.models.pose import POSE_SIZE

Styles = NDArray[np.float32]

DARKEST = 0.02
"""Mean of the darkest region, of a full range of 1; the brightest is as far from white."""
MARGIN = 0.1
"""By how much structures may leave the client's own range of brightness."""


def diversify_style(
    styles: Styles,
    others: Sequence[Styles],
    *,
    share: float,
    random: np.random.Generator,
) -> tuple[Styles, NDArray[np.bool_]]:
    """Replaces a share of the styles by shifted ones, half of them of other clients.

    Args:
        styles: ``[count, size]``, as measured by the painted space.
        others: styles of other clients, same size.
        share: of the styles that change, in [0, 1]; below 1 at least one stays.
        random: the stream.

    Returns:
        A new array of the same shape, and which of its rows changed.
    """
    mixed, changed = styles.copy(), np.zeros(len(styles), np.bool_)
    most = len(styles) if share == 1 else len(styles) - 1
    count = min(round(share * len(styles)), most)
    changed[random.permutation(len(styles))[:count]] = True
    for index in np.flatnonzero(changed):
        if others and random.random() < 0.5:
            pool = others[int(random.integers(len(others)))]
            mixed[index] = borrowed(mixed[index], pool[random.integers(len(pool))])
        mixed[index] = shift_style(mixed[index], random)
    return mixed, changed


def borrowed(style: Styles, other: Styles) -> Styles:
    """Another image's style, ``[size]``, under this one's pose.

    Regions that the other image lacks keep their own look: a region without pixels has no colour
    and no texture, and would be drawn as a black hole.
    """
    regions = style[:-POSE_SIZE].reshape(-1, NUM_FEATURES)
    taken = other[:-POSE_SIZE].reshape(-1, NUM_FEATURES)
    mixed = np.where(taken[:, AREA, None] > 0, taken, regions)
    return np.concatenate([mixed.reshape(-1), style[-POSE_SIZE:]])


def shift_style(style: Styles, random: np.random.Generator) -> Styles:
    """Shifts contrast, colour and roughness of one style, ``[size]``.

    Each structure gets a brightness of its own (:func:`recast_structures`). All regions share one
    channel order, gain and shift.
    """
    regions = style[:-POSE_SIZE].reshape(-1, NUM_FEATURES).copy()
    order = random.permutation(3)
    means = recast_structures(regions[:, MEAN][:, order], random, regions[:, AREA] > 0)
    gain = 2.0 ** random.uniform(-0.7, 0.4)
    means = means[:1] + (means - means[:1]) * gain + random.uniform(-0.1, 0.1)
    own = random.normal(0, 0.05, (len(regions), 1))
    own[WHOLE], own[NEAR] = 0, own[FAR]  # no halo that would give structures away
    regions[:, MEAN] = np.clip(means + own, DARKEST, 1 - DARKEST)
    roughness = gain * 2.0 ** random.uniform(-0.5, 0.5)
    regions[:, STD] = np.clip(regions[:, STD][:, order] * roughness, 0, 0.5)
    for feature in (DEVIATION, COARSE, FINE, CHROMA):
        regions[:, feature] = np.clip(regions[:, feature] * roughness, 0, 0.5)
    return np.concatenate([regions.reshape(-1), style[-POSE_SIZE:]]).astype(np.float32)


def recast_structures(
    means: Styles, random: np.random.Generator, present: NDArray[np.bool_]
) -> Styles:
    """Gives each structure a brightness of its own, as another pulse sequence or stain would.

    Which structure is brighter than which is what differs most between sequences, and what a model
    that saw few of them takes for granted. Networks trained on label maps painted in random
    contrasts read sequences they never saw (SynthSeg, Billot et al. 2023, arXiv 2107.09559).

    Args:
        means: colour of the whole image, far and near ground and each structure, ``[regions, 3]``.
        random: the stream.
        present: which of these regions have pixels, so that their means are colours, ``[regions]``.

    Returns:
        The same with structures between :data:`MARGIN` below the darkest region and as much above
        the brightest, each channel moved alike.
    """
    grey = means.mean(axis=1)
    seen = grey[FAR:][present[FAR:]]
    low, high = seen.min() - MARGIN, seen.max() + MARGIN
    structures = slice(FIRST_STRUCTURE, None)
    drawn = random.uniform(max(low, DARKEST), min(high, 1 - DARKEST), len(grey[structures]))
    recast = means.copy()
    recast[structures] += (drawn - grey[structures])[:, None]
    return recast
