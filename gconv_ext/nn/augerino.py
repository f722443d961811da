"""Augerino (Benton et al. 2020), the baseline of paper 4: one learned distribution of transformations of the input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_tensor
from ..sampled_groups import Elements, moved_back
from .distributions import ElementDistribution


class Augerino(nn.Module):
    """The mean of a network's results over transformed inputs, whose distribution is learned with the network:

        y(x) = mean over sampled u of network(u·x)

    Paper 4 takes networks that are equivariant to translations alone, and samples as its layers do.

    Args:
        network: from [B, C, H, W] to [B, K].
        group, elements, rotations: see ElementDistribution.

    Shapes: x [B, C, H, W] -> [B, K]; the network sees N · B images at once.
    """

    def __init__(
        self, network: nn.Module, group: str = "SE2", elements: int = 8, rotations: str = "uniform",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ):  # fmt: skip
        super().__init__()
        self.network = network
        self.distribution = ElementDistribution(group, elements, True, rotations, device=device, dtype=dtype)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        check_tensor("x", x, 4, "[B, C, H, W]")
        elements = self.distribution(generator)
        results = self.network(transformed(x, elements).flatten(0, 1)).unflatten(0, (-1, len(x)))
        if elements.weights is None:
            return results.mean(0)
        return (results * (elements.weights / elements.weights.sum())[:, None, None]).sum(0)

    def equivariance_penalty(self) -> Tensor:
        """How far the distribution is from the whole group: 1 − extent, and 1 − p for the mirrored elements.  Benton et
        al. need such a term, or the distribution shrinks to the identity."""
        mirror = self.distribution.kept_mirror
        return 1 - self.distribution.extent + (0 if mirror is None else 1 - mirror.probability.sum())


def transformed(x: Tensor, elements: Elements) -> Tensor:
    """u·x for every element u, (u·x)[p] = x[u⁻¹p], by bilinear interpolation, zero outside the image; differentiable in
    the angles.

    Shapes: x [B, C, H, W] -> [N, B, C, H, W].
    """
    height, width = x.shape[-2:]
    rows, columns = (torch.arange(size, device=x.device, dtype=x.dtype) - (size - 1) / 2 for size in (height, width))
    pixels = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
    places = moved_back(pixels, elements.turns, elements.signs)  # [N, H·W, (row, column)], from the centre
    grid = (places * (2 / places.new_tensor([height, width]))).flip(-1).unflatten(1, (height, width))
    grid = grid.repeat_interleave(len(x), dim=0)
    images = x.repeat(len(elements.turns), 1, 1, 1)
    return F.grid_sample(images, grid.to(x.dtype), align_corners=False).unflatten(0, (-1, len(x)))
