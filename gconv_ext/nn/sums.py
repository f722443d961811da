"""Sums in an order that follows the symmetry: a turned or reflected map gives the same bits.

Floating-point addition commutes and does not associate, so a sum keeps its bits under a group when the group maps its
tree of additions onto itself.  The trees here follow a chain of subgroups, each half of the next: what r² exchanges is
added first, then what a reflection exchanges, then what the diagonal does.  16-bit numbers are summed in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """x in the type that sums are formed in: at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def element_sum(x: Tensor) -> Tensor:
    """Σ_h x[b, c, h, …] over the elements of a group, [B, C, |P|, …] -> [B, C, …].

    The halves of the tree are the cosets of a subgroup, which left multiplication permutes: C4 beside its mirror image
    in D4, {r^k, r^(k+2)} in C4.  With other orders than a PointGroup's the sum is right, and its order any.
    """
    order = x.shape[2]
    if order == 1:
        return x.squeeze(2)
    if order not in (2, 4, 8):
        return x.sum(2)
    one, other = (x[:, :, :4], x[:, :, 4:]) if order == 8 else (x[:, :, ::2], x[:, :, 1::2])
    return element_sum(one) + element_sum(other)


def plane_sum(x: Tensor) -> Tensor:
    """Σ_p x[…, p] over the pixels of each plane, [..., H, W] -> [...]."""
    x = x + x.flip(-2, -1)
    x = x + x.flip(-1)
    height, width = x.shape[-2:]
    if height == width:
        x = x + x.mT
    elif height > width:
        x = x.mT
    # Each pixel now holds the sum over its images, counted as often as the plane was folded.
    return x.contiguous().flatten(-2).sum(-1) / (8 if height == width else 4)


def window_sum(x: Tensor, taps: list[int], stride: int) -> Tensor:
    """y[…, p] = Σ_ij taps[i] · taps[j] · x[…, s·p + (i, j)], for taps that read the same backwards, [..., H, W] ->
    [..., H', W']."""
    size = len(taps)
    last, middle = size - 1, (size - 1) / 2
    height, width = ((n - size) // stride + 1 for n in x.shape[-2:])

    def tap(i, j):
        return x[..., i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]

    def pair(i, j):  # with its image under r²
        return tap(i, j) if i == j == middle else tap(i, j) + tap(last - i, last - j)

    def four(i, j):  # and under the reflections
        return pair(i, j) if middle in (i, j) else pair(i, j) + pair(i, last - j)

    total = None
    for i in range((size + 1) // 2):
        for j in range(i, (size + 1) // 2):
            orbit = four(i, j) if i == j else four(i, j) + four(j, i)
            orbit = orbit if taps[i] * taps[j] == 1 else orbit * (taps[i] * taps[j])
            total = orbit if total is None else total + orbit
    return total
