"""Sums in an order that follows the symmetry: a turned or reflected map gives the same bits.

Floating-point addition commutes and does not associate, so a sum keeps its bits under a group when the group maps its
tree of additions onto itself.  The trees here follow a chain of subgroups, each half of the next: what r² exchanges is
added first, then what a reflection exchanges, then what the diagonal does.  16-bit numbers are summed in float32.  A
compiler that reorders the additions, or contracts them with products, is free to change the bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """x in the type that sums are formed in: at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def element_sum(x: Tensor) -> Tensor:
    """Σ_h x[b, c, h, …] over the elements of a group, [B, C, |P|, …] -> [B, C, …].

    The halves of the tree are the cosets of a subgroup, which left multiplication permutes: C4 beside its mirror image
    in D4, {r^k, r^(k+2)} in C4.  With other orders than a PointGroup's the sum is right, and its order any.
    """
    return _tree_sum(x.unbind(2)) if x.shape[2] in (1, 2, 4, 8) else x.sum(2)


def _tree_sum(elements: tuple[Tensor, ...]) -> Tensor:
    if len(elements) == 1:
        return elements[0]
    one, other = (elements[:4], elements[4:]) if len(elements) == 8 else (elements[::2], elements[1::2])
    return _tree_sum(one) + _tree_sum(other)


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


def window_sum(x: Tensor, taps: list[int], stride: int, padding: int = 0) -> Tensor:
    """y[…, p] = Σ_ij taps[i] · taps[j] · x[…, s·p + (i, j) − padding], for taps that read the same backwards, with
    zeros beyond the edges: [..., H, W] -> [..., H', W']."""
    size = len(taps)
    last, middle = size - 1, (size - 1) / 2
    height, width = ((n + 2 * padding - size) // stride + 1 for n in x.shape[-2:])

    # The pixels of each of the s² phases as a map of its own: its slices, and their gradients, are s² times smaller.
    rows, columns = height + last // stride, width + last // stride
    ends = (padding, stride * columns - x.shape[-1] - padding, padding, stride * rows - x.shape[-2] - padding)
    x = F.pad(x, ends) if any(ends) else x
    by_phase = x.unflatten(-1, (columns, stride)).unflatten(-3, (rows, stride))
    phases = [row.unbind(-1) for row in by_phase.unbind(-3)]

    def tap(i: int, j: int) -> Tensor:
        phase = phases[i % stride][j % stride]
        i, j = i // stride, j // stride
        return phase if last < stride else phase[..., i : i + height, j : j + width]

    def pair(i: int, j: int) -> Tensor:  # with its image under r²
        return tap(i, j) if i == j == middle else tap(i, j) + tap(last - i, last - j)

    def four(i: int, j: int) -> Tensor:  # and under the reflections
        return pair(i, j) if middle in (i, j) else pair(i, j) + pair(i, last - j)

    total: Tensor | None = None
    for i in range((size + 1) // 2):
        for j in range(i, (size + 1) // 2):
            orbit = four(i, j) if i == j else four(i, j) + four(j, i)
            orbit = orbit if taps[i] * taps[j] == 1 else orbit * (taps[i] * taps[j])
            total = orbit if total is None else total + orbit
    assert total is not None  # there is at least one tap
    return total
