"""Sums in an order that follows the symmetry: a turned or reflected map gives the same bits.

Floating-point addition commutes and does not associate, so a sum keeps its bits under a group when the group maps its
tree of additions onto itself.  The trees here follow a chain of subgroups, each half of the next: what r² exchanges is
added first, then what a reflection exchanges, then what the diagonal does.  16-bit numbers are summed in float32.  A
compiler that reorders the additions, or contracts them with products, is free to change the bits.
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
