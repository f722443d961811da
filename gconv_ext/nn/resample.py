"""Downsampling without aliasing, and upsampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from ..checks import check_positive, check_tensor
from ..memory_format import format_of, in_format
from ..window_sum import separable, window_sum
from .pooling import SpatialMaxPool2d, _SpatialPool2d
from .sums import widened

_LAYOUT = "[B, C, |P|, H, W]"


def _extended(x: Tensor, padding: int, skip: int) -> Tensor:
    """x [..., H, W] with `padding` pixels more at each end, the mirror image of those after the `skip` outermost: 1
    reflects, 0 repeats one pixel.  torch.nn.functional.pad does so too, but its gradient does not compile for
    channels-last maps."""
    for axis in (-2, -1):
        first = x.narrow(axis, skip, padding).flip(axis)
        last = x.narrow(axis, x.shape[axis] - skip - padding, padding).flip(axis)
        x = torch.cat([first, x, last], axis)
    return x


class SpatialBlurPool2d(_SpatialPool2d):
    """Anti-aliased downsampling (Zhang 2019): each plane is blurred with a binomial filter, then every stride-th pixel
    is kept.

        y[b, c, h, p] = Σ_ij β_i · β_j · x[b, c, h, s·p + (i, j) − k // 2],    β_i = binomial(k − 1, i) / 2^(k − 1)

    with reflected edges.  Equivariant, then to the bit, where (i + 2·(k // 2) − k) is a multiple of the stride for maps
    of size i (paper 3): for odd k and stride 2, where i is odd.

    Args:
        kernel_size: k taps a side; 3 is [1, 2, 1] / 4, 5 is [1, 4, 6, 4, 1] / 16.
        stride: s, in pixels.

    Shapes: [B, C, |P|, H, W] -> [B, C, |P|, H', W'], H' = (H + 2·(k // 2) − k) // s + 1.

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    def __init__(self, kernel_size: int = 3, stride: int = 2):
        check_positive("kernel_size", kernel_size)
        super().__init__(kernel_size, stride, padding=kernel_size // 2)

    def _pool(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) <= self.padding:
            raise ValueError(
                f"x is too small: edges of {self.padding} pixels are reflected from at least {self.padding + 1}, "
                f"got {x.shape[-2]} x {x.shape[-1]}"
            )
        order = self.kernel_size - 1
        taps = separable([math.comb(order, i) for i in range(self.kernel_size)])
        return (window_sum(_extended(widened(x), self.padding, 1), taps, self.stride) / 4**order).to(x.dtype)


class SpatialFilterPool2d(_SpatialPool2d):
    """Correlates each plane with one fixed filter that no turn or reflection changes, and keeps every stride-th pixel.

        y[b, c, h, p] = Σ_t taps[t] · x[b, c, h, s·p + t − padding]

    with zeros beyond the edges.  Equivariant, then to the bit, where (i + 2·padding − k) is a multiple of the stride for
    maps of size i (paper 3).

    Args:
        taps: k rows of k numbers.
        stride: s, in pixels.
        padding: in pixels, with zeros; at most k // 2.

    Shapes: [B, C, |P|, H, W] -> [B, C, |P|, H', W'], H' = (H + 2·padding − k) // s + 1.

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument: taps that are no
            square of finite numbers, or that a turn or reflection changes.
    """

    def __init__(self, taps: Sequence[Sequence[float]], stride: int = 1, padding: int = 0):
        try:
            rows = [[float(number) for number in row] for row in taps]
        except (TypeError, ValueError) as error:
            raise TypeError(f"taps must be k rows of k numbers, got {taps!r}") from error
        if not rows or any(len(row) != len(rows) for row in rows):
            raise ValueError(f"taps must be k rows of k numbers, got rows of {[len(row) for row in rows]}")
        if not all(math.isfinite(number) for row in rows for number in row):
            raise ValueError(f"taps must be finite, got {rows}")
        if rows != rows[::-1] or rows != [list(column) for column in zip(*rows)]:
            raise ValueError(f"taps must be the same after each turn and reflection, got {rows}")
        super().__init__(len(rows), stride, padding)
        self.taps = rows

    @classmethod
    def gaussian(cls, sigma: float, stride: int = 1, padding: int | None = None) -> SpatialFilterPool2d:
        """taps[i, j] ∝ exp(−(i² + j²) / 2σ²), counted from the middle, with the sum 1.

        Args:
            sigma: σ, in pixels; the filter has k = 2·round(3σ) + 1 taps a side.
            stride: in pixels.
            padding: in pixels; k // 2 by default.

        Raises:
            TypeError, ValueError: naming the argument: a sigma that is not positive and finite.
        """
        if not isinstance(sigma, Real) or not 0 < sigma < math.inf:
            raise ValueError(f"sigma must be positive and finite, got {sigma!r}")
        radius = round(3 * sigma)
        bell = [math.exp(-((i / sigma) ** 2) / 2) for i in range(-radius, radius + 1)]
        rows = [[one * other / sum(bell) ** 2 for other in bell] for one in bell]
        return cls(rows, stride, radius if padding is None else padding)

    def _pool(self, x: Tensor) -> Tensor:
        taps = [number for row in self.taps for number in row]
        return window_sum(widened(x), taps, self.stride, self.padding).to(x.dtype)


class SpatialMaxBlurPool2d(nn.Sequential):
    """Anti-aliased max pooling (Zhang 2019): the maximum over k x k pixels at every pixel, then SpatialBlurPool2d.

    Equivariant, then to the bit, where (i − k + 1 + 2·(b // 2) − b) is a multiple of the stride for maps of size i
    (paper 3): for k = 2, b = 3 and stride 2, where i is even.

    Args:
        kernel_size: k, of the maximum, in pixels.
        stride: of the blur, in pixels.
        blur_size: b taps a side, of the blur.

    Shapes: [B, C, |P|, H, W] -> [B, C, |P|, H', W'], H' = (H − k + 1 + 2·(b // 2) − b) // stride + 1.
    """

    def __init__(self, kernel_size: int = 2, stride: int = 2, blur_size: int = 3):
        super().__init__(SpatialMaxPool2d(kernel_size, stride=1), SpatialBlurPool2d(blur_size, stride))


class SpatialUpsample2d(nn.Module):
    """Upsamples each plane by an integer factor s.

        nearest     y[…, q] = x[…, q // s]
        bilinear    y[…, q] = the bilinear interpolation of x at (q + ½) / s − ½, edges repeated
                              (torch.nn.functional.interpolate with align_corners=False)

    Equivariant for maps of every size, and exact to the bit: the four weighted pixels of "bilinear" are added in an
    order that no turn or reflection changes.

    Args:
        scale_factor: s.
        mode: "nearest" or "bilinear".

    Shapes: [B, C, |P|, H, W] -> [B, C, |P|, s·H, s·W].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    def __init__(self, scale_factor: int = 2, mode: str = "nearest"):
        super().__init__()
        self.scale_factor = check_positive("scale_factor", scale_factor)
        if mode not in ("nearest", "bilinear"):
            raise ValueError(f"mode must be 'nearest' or 'bilinear', got {mode!r}")
        self.mode = mode

    def _bilinear(self, x: Tensor) -> Tensor:
        s, (height, width) = self.scale_factor, x.shape[-2:]
        padded = _extended(x, 1, 0)
        # Of the s new pixels in an old one's place, each has its nearest at weight 1 - a and that one's neighbour at
        # weight a.
        axis = [((2 * r + 1 > s) - (2 * r + 1 < s), abs(2 * r + 1 - s) / (2 * s)) for r in range(s)]

        def old(down: int, right: int) -> Tensor:
            return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

        def new(down: int, a: float, right: int, b: float) -> Tensor:
            corners = old(0, 0) * ((1 - a) * (1 - b)) + old(down, right) * (a * b)
            return corners + (old(0, right) * ((1 - a) * b) + old(down, 0) * (a * (1 - b)))

        rows = [torch.stack([new(*row, *column) for column in axis], -1) for row in axis]
        return torch.stack(rows, -3).flatten(-4, -3).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        if self.mode == "nearest":
            y = x.repeat_interleave(self.scale_factor, -2).repeat_interleave(self.scale_factor, -1)
        else:
            y = self._bilinear(widened(x)).to(x.dtype)
        return in_format(y, format_of(x))

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}, mode={self.mode!r}"
