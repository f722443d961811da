"""Paper 1's modified MNIST: digits turned by random quarter turns, with isotropic or anisotropic Gaussian noise.

Everything is drawn once from seeded generators, so that a split is the same in every epoch, process and resumed run.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

NOISES = ("none", "iso", "aniso")


def noise_map(noise: str, height: int = 28, width: int = 28) -> Tensor:
    """Variance of the noise by pixel, in units of σ²; the mean over the pixels is 1 (0 for "none").

    "aniso" follows paper 1, Fig. 1: on the left half the variance falls along half a wavelength from top to bottom, on the
    right half it varies along two wavelengths from left to right, which makes two quieter bands there:

        m(i, j) ∝ ½ (1 + cos(π (i + ½) / H))               j < W / 2
        m(i, j) ∝ ½ (1 + cos(4π (j − W/2 + ½) / (W/2)))     j ≥ W / 2

    The paper states the wavelengths, not the phases; they are ours.

    Args:
        noise: "none", "iso" or "aniso".
        height, width: of the images, in pixels.

    Returns:
        float32 tensor [height, width].

    Raises:
        ValueError: unknown noise.
    """
    if noise not in NOISES:
        raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {noise!r}")
    if noise != "aniso":
        return torch.full((height, width), 0.0 if noise == "none" else 1.0)
    half = width // 2
    rows = torch.arange(height, dtype=torch.float64) + 0.5
    columns = torch.arange(width - half, dtype=torch.float64) + 0.5
    strength = torch.empty(height, width, dtype=torch.float64)
    strength[:, :half] = (1 + torch.cos(math.pi * rows / height))[:, None]
    strength[:, half:] = 1 + torch.cos(4 * math.pi * columns / (width - half))
    return (strength / strength.mean()).float()


def quarter_turned(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turns each of the images [N, C, H, H] by a random multiple of 90°."""
    turns = torch.randint(4, (len(images),), generator=generator)
    result = images.clone()
    for k in (1, 2, 3):
        result[turns == k] = torch.rot90(images[turns == k], k, (-2, -1))
    return result


def noised(images: Tensor, noise: str, sigma: float, generator: torch.Generator) -> Tensor:
    """Adds Gaussian noise of variance σ² · noise_map to images [N, C, H, W]; values are not clipped.

    Args:
        images: grey values in [0, 1].
        noise: "none", "iso" or "aniso".
        sigma: root of the mean variance, in grey values.
        generator: of torch, on the CPU.
    """
    scale = sigma * noise_map(noise, *images.shape[-2:]).sqrt()
    return images if noise == "none" else images + scale * torch.randn(images.shape, generator=generator)


def noisy_split(
    images: np.ndarray, split: str, noise: str, sigma: float, seed: int
) -> tuple[Tensor, Tensor]:
    """(noisy, clean) float32 images [N, 1, 28, 28] of one split: turned alike, with and without noise.

    Args:
        images: uint8 [N, 28, 28].
        split: "train", "validation" or "test"; each draws its own turns and noise.
        noise, sigma: as for `noised`.
        seed: of the experiment.
    """
    offset = {"train": 0, "validation": 1, "test": 2}[split]
    generator = torch.Generator().manual_seed(seed * 3 + offset)
    clean = quarter_turned(torch.from_numpy(images.astype(np.float32) / 255).unsqueeze(1), generator)
    return noised(clean, noise, sigma, generator), clean
