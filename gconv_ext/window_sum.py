"""Sums over the windows of planes, in an order that follows the symmetry (see nn/sums.py): pooling by the mean, blurring.

    y[p] = Σ_t taps[t] · x[stride · p + t − padding]

with zeros beyond the edges, for taps that no turn or reflection changes.  By kernels on the CPU, by slices elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops
from .kept import differentiated, forward_mode, plain
from .memory_format import lies_in_rows


def window_sum(x: Tensor, taps: Sequence[float], stride: int, padding: int = 0) -> Tensor:
    """The equation above, [..., H, W] -> [..., H', W'] with H' = (H + 2·padding − k) // stride + 1, differentiable to every
    order; exact to the bit where (H + 2·padding − k) is a multiple of the stride, and its gradient too.  The k² taps stand
    row by row."""
    if _has_kernels(x):
        return _WindowSum.apply(x, taps, stride, padding)
    return _by_slices(x, taps, stride, padding)


def separable(taps: Sequence[float]) -> list[float]:
    """taps[i] · taps[j], row by row."""
    return [one * other for one in taps for other in taps]


def _has_kernels(x: Tensor) -> bool:
    return (
        ops.is_compiled("window_sum_fprop", x.device)
        and x.dtype in (torch.float32, torch.float64)
        and x.dim() >= 3
        and lies_in_rows(x)  # else slices keep the memory format
        and plain(x)
        and not forward_mode()
    )


class _WindowSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Sequence[float], stride: int, padding: int) -> Tensor:
        ctx.options = taps, x.shape[-2:], stride, padding
        return ops.window_sum_fprop(x, taps, stride, padding)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        # Without a graph to build the op itself, which vmap knows.
        dgrad = _WindowSumDgrad.apply if differentiated() else ops.window_sum_dgrad
        return dgrad(dy, *ctx.options), None, None, None


class _WindowSumDgrad(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, dy: Tensor, taps: Sequence[float], input_size: torch.Size, stride: int, padding: int
    ) -> Tensor:
        ctx.options = taps, stride, padding
        return ops.window_sum_dgrad(dy, taps, input_size, stride, padding)

    @staticmethod
    def backward(ctx: Any, ddx: Tensor) -> tuple[Tensor, None, None, None, None]:
        fprop = _WindowSum.apply if differentiated() else ops.window_sum_fprop
        return fprop(ddx, *ctx.options), None, None, None, None


def _by_slices(x: Tensor, taps: Sequence[float], stride: int, padding: int) -> Tensor:
    size = math.isqrt(len(taps))
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
            orbit = orbit if taps[i * size + j] == 1 else orbit * taps[i * size + j]
            total = orbit if total is None else total + orbit
    assert total is not None  # there is at least one tap
    return total
