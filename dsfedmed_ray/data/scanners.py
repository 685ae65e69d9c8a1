"""A simulated scanner: how tissue becomes an image at one site.

The contrast is the textbook order of signal intensities of each sequence (for example Bitar et
al., RadioGraphics 26(2), 513-537, 2006), not the solution of Bloch's equations.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dsfedmed_ray.data.smooth_fields import smooth_field

PulseSequence = Literal["t1", "t2", "pd", "flair"]

# Signal of grey matter, white matter and fluid; how the T1's own texture (deep nuclei, cortical
# layers) shows, negative where bright and dark change places.
_CONTRASTS: dict[PulseSequence, tuple[float, float, float, float]] = {
    "t1": (0.58, 0.86, 0.20, 1.0),
    "t2": (0.60, 0.40, 1.00, -0.6),
    "pd": (0.84, 0.66, 0.92, -0.4),
    "flair": (0.74, 0.55, 0.10, -0.5),
}
SEQUENCES: tuple[PulseSequence, ...] = tuple(_CONTRASTS)

_TEMPLATE_T1 = (0.65, 0.86, 0.28)  # what the tissues show in the template's own T1
_BIAS_FREQUENCIES = 3
_FWHM_PER_SIGMA = 2.355


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """The fixed properties of one site's scanner.

    Attributes:
        sequence: the pulse sequence it runs.
        signals: of grey matter, white matter and fluid, in [0, 1].
        texture: weight of the T1's texture.
        gain: scales the signal; what exceeds 1 saturates.
        gamma: exponent of the display curve.
        bias: strength of the shading of the receiving coil, log scale.
        noise: standard deviation of the complex noise, of a full signal of 1.
        resolution_mm: in-plane resolution, full width at half maximum.
        thickness_mm: slice thickness.
    """

    sequence: PulseSequence
    signals: tuple[float, float, float]
    texture: float
    gain: float
    gamma: float
    bias: float
    noise: float
    resolution_mm: float
    thickness_mm: float


def draw_scanner(generator: np.random.Generator, sequence: PulseSequence | None = None) -> Scanner:
    """Draws a site's scanner around a sequence's contrast; any sequence where None is given."""
    drawn = SEQUENCES[generator.integers(len(SEQUENCES))]
    sequence = sequence or drawn
    *centres, texture = _CONTRASTS[sequence]
    grey, white, fluid = np.clip(centres + generator.uniform(-0.05, 0.05, size=3), 0.02, 1.0)
    return Scanner(
        sequence=sequence,
        signals=(float(grey), float(white), float(fluid)),
        texture=texture * generator.uniform(0.7, 1.2),
        gain=generator.uniform(0.8, 1.05),
        gamma=generator.uniform(0.8, 1.25),
        bias=generator.uniform(0.03, 0.15),
        noise=generator.uniform(0.01, 0.05),
        resolution_mm=generator.uniform(1.0, 3.5),
        thickness_mm=float(generator.integers(1, 6)),
    )


def acquire(
    scanner: Scanner,
    t1: NDArray[np.float32],
    tissues: NDArray[np.float32],
    *,
    pixel_mm: float,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Images one slice.

    Args:
        scanner: the site's scanner.
        t1: ``[size, size]`` in [0, 1], the template's T1.
        tissues: ``[3, size, size]``, fractions of grey matter, white matter and fluid.
        pixel_mm: side of a pixel.
        generator: draws shading and noise of this acquisition.

    Returns:
        ``[size, size]``, 0 and above.
    """
    from scipy import ndimage

    size = t1.shape[0]
    contrast = np.asarray(scanner.signals, np.float32) - scanner.texture * np.asarray(
        _TEMPLATE_T1, np.float32
    )
    signal = np.tensordot(contrast, tissues, axes=1) + scanner.texture * t1
    sigma = scanner.resolution_mm / _FWHM_PER_SIGMA / pixel_mm
    signal = ndimage.gaussian_filter(np.maximum(signal, 0), sigma, truncate=3.0)
    shading = smooth_field(generator, size, num_frequencies=_BIAS_FREQUENCIES)
    signal = scanner.gain * signal * np.exp(scanner.bias * shading)
    # Rician: the magnitude of a complex signal whose two parts carry Gaussian noise.
    real, imaginary = scanner.noise * generator.standard_normal((2, size, size), dtype=np.float32)
    magnitude = np.hypot(signal + real, imaginary)
    image: NDArray[np.float32] = np.minimum(magnitude, 1.0) ** np.float32(scanner.gamma)
    return image
