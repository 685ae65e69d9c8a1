"""A linear autoencoder: principal components of image patches, in diffusers' folder format.

It stands where Stable Diffusion has its ``AutoencoderKL``. Its decoder is exact up to the dropped
components, costs one convolution, and, being linear, encodes the difference of two images to the
difference of their latents.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dsfedmed_ray.errors import ConfigurationError


class LinearCodec(ModelMixin, ConfigMixin):
    """Patches to whitened principal components and back.

    Args:
        patch_size: side of a patch, pixels; one latent position each.
        in_channels: channels of the images.
        latent_channels: components kept.
        whitening: components are divided by their standard deviation to this power, so 1 makes
            all of them equally large and 0 leaves them.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        patch_size: int = 8,
        in_channels: int = 3,
        latent_channels: int = 40,
        whitening: float = 0.7,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.whitening = whitening
        shape = (latent_channels, in_channels, patch_size, patch_size)
        self.basis = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(latent_channels), requires_grad=False)

    def fit(self, images: Float[Tensor, "batch channels height width"]) -> float:
        """Sets the basis from images without moving their mean, which stays 0.

        Returns:
            The fraction of the images' energy that the kept components hold.
        """
        patches = functional.unfold(images, self.patch_size, stride=self.patch_size)
        rows = patches.transpose(1, 2).reshape(-1, patches.shape[1]).double()
        if rows.shape[0] < rows.shape[1]:
            raise ConfigurationError(
                f"{rows.shape[0]} patches cannot fix {rows.shape[1]} components; give more images"
            )
        values, vectors = torch.linalg.eigh(rows.T @ rows / rows.shape[0])
        kept = self.scale.shape[0]
        basis = vectors[:, -kept:].flip(1).T
        basis = basis * torch.where(basis.sum(1, keepdim=True) < 0, -1.0, 1.0)
        spread = values[-kept:].flip(0).clamp(min=1e-12).sqrt()
        scale = spread**self.whitening
        latent_energy = (spread / scale).square().mean().sqrt()
        self.basis.data.copy_(basis.reshape(self.basis.shape))
        self.scale.data.copy_(scale * latent_energy)
        return float(values[-kept:].sum() / values.sum())

    def encode(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch latents rows columns"]:
        """Latents with a mean square near 1 on images like those of :meth:`fit`."""
        latents = functional.conv2d(images, self.basis, stride=self.patch_size)
        return latents / self.scale.view(1, -1, 1, 1)

    def decode(
        self, latents: Float[Tensor, "batch latents rows columns"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images whose kept components these are."""
        scaled = latents * self.scale.view(1, -1, 1, 1)
        patches = torch.einsum("bkrc,kp->bprc", scaled, self.basis.flatten(1))
        return functional.pixel_shuffle(patches, self.patch_size)
