"""Layouts hold what images agree on, and nothing of what they do not."""

import pytest
import torch

from dsfedmed_ray.models.generator import limit_energy
from dsfedmed_ray.models.image_space import PaintedSpace
from dsfedmed_ray.models.latent_codec import LinearCodec
from dsfedmed_ray.models.layout import SMALLEST_FACTOR, Layout, mean_layout
from dsfedmed_ray.models.pose import REACH


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def centred(count: int) -> torch.Tensor:
    """Poses whose common frame is the image itself."""
    return torch.eye(2, 3).expand(count, 2, 3) / REACH


def test_images_that_agree() -> None:
    """Residuals are 1 on the left and -1 on the right: that is the mean, and nothing is left."""
    residuals = torch.ones(10, 3, 32, 32)
    residuals[..., 16:] = -1
    mean, factor = mean_layout(residuals, centred(10), 16)
    assert torch.allclose(mean[:, :, 3], torch.ones(3, 16))
    assert mean[0, 0, 12].item() == pytest.approx(-1.0)
    assert factor[0, 0, 3].item() == pytest.approx(SMALLEST_FACTOR)


def test_images_that_have_nothing_in_common() -> None:
    """Independent noise: means are shrunk to nearly nothing and deviations stay 1."""
    mean, factor = mean_layout(noise(40, 3, 64, 64), centred(40), 16)
    assert mean.square().mean().sqrt() < 0.03
    assert factor.mean().item() == pytest.approx(1.0, abs=0.03)


def test_one_image_has_nothing_to_share() -> None:
    """With one pair the mean is the image itself, but a layout must not be needed to exist."""
    mean, factor = mean_layout(torch.zeros(1, 3, 32, 32), centred(1), 16)
    assert torch.isfinite(mean).all()
    assert torch.isfinite(factor).all()


def test_layout_moves_the_painting_where_there_is_no_structure() -> None:
    codec = LinearCodec(latent_channels=48)
    codec.fit(noise(20, 3, 64, 64))
    space = PaintedSpace(codec)
    images = (0.5 + 0.1 * noise(1, 3, 64, 64)).clamp(0, 1)
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., :32] = 1
    style = space.measure(images, masks)
    layout = Layout(
        mean=torch.ones(3, 16, 16), factor=torch.full((1, 16, 16), 0.5), spectrum=torch.ones(48)
    )
    plain, moved = space.condition(masks, style).painting, space.condition(masks, style, layout)
    assert plain is not None
    assert moved.painting is not None
    shift = moved.painting.colour - plain.colour
    assert shift[..., :24].abs().max() < 1e-3
    assert shift[..., 48:].mean() > 0.05
    ratio = moved.painting.deviation / plain.deviation
    assert ratio[..., 48:].mean().item() == pytest.approx(0.5, abs=0.01)
    found = space.layout(images.expand(3, -1, -1, -1), masks.expand(3, -1, -1, -1), 16)
    assert found is not None
    assert found.spectrum.shape == (48,)


def test_energy_is_limited_channel_by_channel() -> None:
    """A = s = sqrt(1/2); x and v are such that z = 2 in both channels; allowed are 1 and 5."""
    signal = torch.tensor(0.5)
    a = 0.5**0.5
    image, error = torch.full((1, 2, 2, 2), 2.0), torch.zeros(1, 2, 2, 2)
    noisy, velocity = a * image + a * error, a * error - a * image
    limited = limit_energy(velocity, noisy, signal, torch.tensor([1.0, 5.0]))
    predicted = a * noisy - a * limited
    assert torch.allclose(predicted[0, 0], torch.ones(2, 2), atol=1e-5)
    assert torch.allclose(predicted[0, 1], torch.full((2, 2), 2.0), atol=1e-5)


def test_pure_noise_step_is_finite() -> None:
    """At the last time a = 0: v is -z, and nothing is divided by 0."""
    velocity = torch.full((1, 1, 2, 2), -3.0)
    limited = limit_energy(velocity, noise(1, 1, 2, 2), torch.tensor(0.0), torch.tensor([1.0]))
    assert torch.allclose(limited, torch.full((1, 1, 2, 2), -1.0))
