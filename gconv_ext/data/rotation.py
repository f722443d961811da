"""Paper 3's rotated images: any angle with bilinear interpolation, a circle to hide it, biased and uniform angles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_positive, check_tensor


class CircleCrop(nn.Module):
    """Sets all pixels to 0 that lie outside the largest circle in the image, so that a rotation leaves no mark in the
    corners (paper 3, section 3.3): those with

        (i − (H − 1)/2)² + (j − (W − 1)/2)² > ((min(H, W) − 1)/2)².

    Exact to the bit under turns and mirrors.

    Shapes: images [..., H, W] -> the same.
    """

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        # Offsets from the centre, doubled, so that they are integers.
        rows = 2 * torch.arange(height, device=images.device) - (height - 1)
        columns = 2 * torch.arange(width, device=images.device) - (width - 1)
        inside = rows[:, None] ** 2 + columns**2 <= (min(height, width) - 1) ** 2
        return torch.where(inside, images, 0)


def rotate(images: Tensor, degrees: Tensor | float) -> Tensor:
    """Rotates images counter-clockwise about their centre, with bilinear interpolation; 0 where nothing was.

    A multiple of 90° is, for square images, torch.rot90 to rounding.

    Args:
        images: [N, C, H, W].
        degrees: one angle, or [N], one for each image.

    Returns:
        [N, C, H, W].

    Raises:
        TypeError, ValueError: images of another shape or dtype, or another number of angles.
    """
    check_tensor("images", images, 4, "[N, C, H, W]")
    degrees = torch.as_tensor(degrees, dtype=torch.float64)
    if degrees.dim() > 1 or degrees.numel() not in (1, len(images)):
        shape = tuple(degrees.shape)
        raise ValueError(f"degrees must be one angle or one for each of {len(images)} images, got shape {shape}")
    height, width = images.shape[-2:]
    angle = torch.deg2rad(degrees).expand(len(images))
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Where a pixel comes from, in grid_sample's coordinates: (x, y) from −1 to 1, y downwards.
    inverse = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], -1).view(-1, 2, 3)
    grid = F.affine_grid(inverse.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def biased_angles(count: int, sigma: float, generator: torch.Generator, mean: float = 45.0) -> Tensor:
    """Angles in degrees from the biased distribution N(mean, sigma²) of paper 3, section 4.2: σ = 20° and 40° there.

    Args:
        count: how many.
        sigma, mean: in degrees.
        generator: of torch, on the CPU; the same seed gives the same angles.

    Returns:
        float32 tensor [count].

    Raises:
        TypeError, ValueError: count below 1, sigma below 0.
    """
    if not sigma >= 0:
        raise ValueError(f"sigma must be at least 0 degrees, got {sigma}")
    return mean + sigma * torch.randn(check_positive("count", count), generator=generator)


def uniform_angles(count: int, generator: torch.Generator) -> Tensor:
    """Angles in degrees, uniform on [0°, 360°), as in the test set of paper 3, section 4.2.  Else as biased_angles."""
    return 360 * torch.rand(check_positive("count", count), generator=generator)
