"""Paper 1's modified MNIST: digits turned by random quarter turns, with isotropic or anisotropic Gaussian noise; and
other maps of its strength and correlated noise, which the paper leaves as open questions.

Everything is drawn once from seeded generators, so that a split is the same in every epoch, process and resumed run.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NOISES = ("none", "iso", "aniso", "linear", "stripes", "radial")


def noise_map(noise: str, height: int = 28, width: int = 28) -> Tensor:
    """Variance of the noise by pixel, in units of σ²; the mean over the pixels is 1 (0 for "none").

    "aniso" follows paper 1, Fig. 1: on the left half the variance falls along half a wavelength from top to bottom, on the
    right half it varies along two wavelengths from left to right, which makes two quieter bands there:

        m(i, j) ∝ ½ (1 + cos(π (i + ½) / H))               j < W / 2
        m(i, j) ∝ ½ (1 + cos(4π (j − W/2 + ½) / (W/2)))     j ≥ W / 2

    The paper states the wavelengths, not the phases; they are ours.  It asks for other patterns; these keep more or
    less of the square's symmetry:

        "linear"     m(i, j) ∝ 1 − (i + ½) / H                  falls from top to bottom; the same after the mirror m
        "stripes"    m(i, j) ∝ ½ (1 + cos(6π (i + ½) / H))      three wavelengths; the same after all of D2
        "radial"     m(i, j) ∝ ½ (1 − cos(π ρ))                 ρ from 0 at the centre to 1 in the corners; the same
                                                                after all of D4, and after no translation

    Args:
        noise: "none", "iso", "aniso", "linear", "stripes" or "radial".
        height, width: of the images, in pixels.

    Returns:
        float32 tensor [height, width].

    Raises:
        ValueError: unknown noise.
    """
    if noise not in NOISES:
        raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {noise!r}")
    if noise in ("none", "iso"):
        return torch.full((height, width), 0.0 if noise == "none" else 1.0)
    rows = torch.arange(height, dtype=torch.float64)[:, None] + 0.5
    columns = torch.arange(width, dtype=torch.float64) + 0.5
    if noise == "aniso":
        half = width // 2
        left = 1 + torch.cos(math.pi * rows / height)
        right = 1 + torch.cos(4 * math.pi * (columns - half) / (width - half))
        strength = torch.where(columns < half, left, right)
    elif noise == "linear":
        strength = (1 - rows / height).expand(-1, width)
    elif noise == "stripes":
        strength = (1 + torch.cos(6 * math.pi * rows / height)).expand(-1, width)
    else:
        distance = torch.hypot(rows - height / 2, columns - width / 2)
        strength = 1 - torch.cos(math.pi * distance / math.hypot(height / 2, width / 2))
    return (strength / strength.mean()).float()


def quarter_turned(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turns each of the images [N, C, H, H] by a random multiple of 90°."""
    turns = torch.randint(4, (len(images),), generator=generator)
    result = images.clone()
    for k in (1, 2, 3):
        result[turns == k] = torch.rot90(images[turns == k], k, (-2, -1))
    return result


def correlated_normal(shape: torch.Size, correlation: float, generator: torch.Generator) -> Tensor:
    """Standard normal numbers [N, C, H, W], independent between images and channels, and between pixels at distance d
    with the correlation exp(−d² / 2ℓ²), ℓ = `correlation` pixels (at ℓ well below 1, none).

    White noise filtered by a Gaussian of standard deviation ℓ / √2 with Σ k² = 1, which keeps the variance at 1 in
    every pixel, those at the edges included, since the white noise reaches beyond them.
    """
    if correlation == 0:
        return torch.randn(shape, generator=generator)
    reach = math.ceil(3 * correlation)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-((offsets / correlation) ** 2))
    kernel = (kernel / kernel.square().sum().sqrt()).float()
    batch, channels, height, width = shape
    white = torch.randn(batch * channels, 1, height + 2 * reach, width + 2 * reach, generator=generator)
    rows_done = F.conv2d(white, kernel.view(1, 1, -1, 1))
    return F.conv2d(rows_done, kernel.view(1, 1, 1, -1)).view(shape)


def noised(images: Tensor, noise: str, sigma: float, generator: torch.Generator, correlation: float = 0.0) -> Tensor:
    """Adds Gaussian noise of variance σ² · noise_map to images [N, C, H, W]; values are not clipped.

    Args:
        images: grey values in [0, 1].
        noise: one of NOISES; see noise_map.
        sigma: root of the mean variance, in grey values.
        generator: of torch, on the CPU.
        correlation: length over which the noise is correlated, in pixels; see correlated_normal.
    """
    if noise == "none":
        return images
    scale = sigma * noise_map(noise, *images.shape[-2:]).sqrt()
    return images + scale * correlated_normal(images.shape, correlation, generator)


def noisy_split(
    images: np.ndarray, split: str, noise: str, sigma: float, seed: int, correlation: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(noisy, clean) float32 images [N, 1, 28, 28] of one split: turned alike, with and without noise.

    Args:
        images: uint8 [N, 28, 28].
        split: "train", "validation" or "test"; each draws its own turns and noise.
        noise, sigma, correlation: as for `noised`.
        seed: of the experiment.
    """
    offset = {"train": 0, "validation": 1, "test": 2}[split]
    generator = torch.Generator().manual_seed(seed * 3 + offset)
    clean = quarter_turned(torch.from_numpy(images.astype(np.float32) / 255).unsqueeze(1), generator)
    return noised(clean, noise, sigma, generator, correlation), clean
