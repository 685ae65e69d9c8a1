"""Style diversity: contrasts and colours that no single client has.

Only the server, which holds every client's style tokens, can draw such images; they are what lets
distillation gain on a site that nobody has seen.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dsfedmed_ray.models.painting import (
    CHROMA,
    COARSE,
    DEVIATION,
    FAR,
    FINE,
    MEAN,
    NEAR,
    NUM_FEATURES,
    STD,
    WHOLE,
)
from dsfedmed_ray.models.pose import POSE_SIZE

Styles = NDArray[np.float32]


def diversify_style(
    styles: Styles,
    others: Sequence[Styles],
    *,
    share: float,
    random: np.random.Generator,
) -> Styles:
    """Replaces a share of the styles by other clients' or shifted ones.

    Args:
        styles: ``[count, size]``, as measured by the painted space.
        others: styles of other clients, same size.
        share: of the styles that change, in [0, 1].
        random: the stream.

    Returns:
        A new array of the same shape.
    """
    mixed = styles.copy()
    for index in range(len(mixed)):
        if random.random() >= share:
            continue
        if others and random.random() < 0.5:
            pool = others[int(random.integers(len(others)))]
            mixed[index, :-POSE_SIZE] = pool[random.integers(len(pool)), :-POSE_SIZE]
        mixed[index] = shift_style(mixed[index], random)
    return mixed


def shift_style(style: Styles, random: np.random.Generator) -> Styles:
    """Shifts contrast, colour and roughness of one style, ``[size]``.

    All regions share one channel order, inversion and gain; each structure then moves a little on
    its own, so that structures may become dimmer than, or as bright as, what surrounds them.
    """
    regions = style[:-POSE_SIZE].reshape(-1, NUM_FEATURES).copy()
    means, spread = regions[:, MEAN], regions[:, STD]
    order = random.permutation(3)
    means, spread = means[:, order], spread[:, order]
    if random.random() < 0.5:
        means = 1 - means
    gain = 2.0 ** random.uniform(-0.7, 0.4)
    middle = random.uniform(0.3, 0.7)
    means = middle + (means - means[:1]) * gain + random.uniform(-0.1, 0.1)
    own = random.normal(0, 0.08, (len(regions), 1))
    own[WHOLE], own[NEAR] = 0, own[FAR]  # no halo that would give structures away
    regions[:, MEAN] = np.clip(means + own, 0.02, 0.98)
    roughness = gain * 2.0 ** random.uniform(-0.5, 0.5)
    regions[:, STD] = np.clip(spread * roughness, 0, 0.5)
    for feature in (DEVIATION, COARSE, FINE, CHROMA):
        regions[:, feature] = np.clip(regions[:, feature] * roughness, 0, 0.5)
    return np.concatenate([regions.reshape(-1), style[-POSE_SIZE:]]).astype(np.float32)
