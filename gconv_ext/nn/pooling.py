"""Pooling over the group axis and over space."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_positive, check_tensor
from ..memory_format import by_planes
from ..window_sum import window_sum
from .sums import element_sum, plane_sum, widened

_LAYOUT = "[B, C, |P|, H, W]"


class _Reduce(nn.Module):
    """The maximum or the mean over the axes that subclasses say; exact to the bit, for both."""

    def __init__(self, reduce: str = "max"):
        super().__init__()
        if reduce not in ("max", "mean"):
            raise ValueError(f"reduce must be 'max' or 'mean', got {reduce!r}")
        self.reduce = reduce

    def extra_repr(self) -> str:
        return f"reduce={self.reduce!r}"


class GroupPool(_Reduce):
    """Coset pooling: drops the group axis, y[b, c, p] = max_h x[b, c, h, p], or the mean.

    Exact to the bit: the mean is summed in an order that the elements of a PointGroup do not change.

    Args:
        reduce: "max" or "mean".

    Shapes: [B, C, |P|, H, W] -> [B, C, H, W].
    """

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        if self.reduce == "max":
            return x.amax(2)
        return (element_sum(widened(x)) / x.shape[2]).to(x.dtype)


class SpatialGlobalPool2d(_Reduce):
    """Pools each plane to one pixel: y[b, c, h] = max_p x[b, c, h, p], or the mean.

    Equivariant for maps of every size, and exact to the bit: the mean is summed in an order that no turn or reflection
    changes.

    Args:
        reduce: "max" or "mean".

    Shapes: [B, C, |P|, H, W] -> [B, C, |P|, 1, 1].
    """

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        if self.reduce == "max":
            return x.amax((-2, -1), keepdim=True)
        return (plane_sum(widened(x)) / (x.shape[-2] * x.shape[-1])).to(x.dtype)[..., None, None]


class GroupGlobalPool(_Reduce):
    """Pools each field to one number: y[b, c] = max_{h, p} x[b, c, h, p], or the mean: GroupPool and
    SpatialGlobalPool2d in one.

    The result is invariant under the group, for maps of every size, and exact to the bit.

    Args:
        reduce: "max" or "mean".

    Shapes: [B, C, |P|, H, W] -> [B, C].
    """

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        if self.reduce == "max":
            return x.amax((2, 3, 4))
        return (plane_sum(element_sum(widened(x))) / (x.shape[2] * x.shape[3] * x.shape[4])).to(x.dtype)


class _SpatialPool2d(nn.Module):
    """Pools each of the C · |P| planes.  Equivariant, then to the bit, where (i + 2·padding − k) is a multiple of the
    stride for maps of size i (paper 3)."""

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0):
        super().__init__()
        self.kernel_size = check_positive("kernel_size", kernel_size)
        self.stride = check_positive("stride", kernel_size if stride is None else stride)
        if not isinstance(padding, int) or not 0 <= padding <= kernel_size // 2:
            raise ValueError(f"padding must be an int from 0 to kernel_size / 2 = {kernel_size // 2}, got {padding!r}")
        self.padding = padding

    def _pool(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        if min(x.shape[-2:]) + 2 * self.padding < self.kernel_size:
            raise ValueError(
                f"x is too small: with padding {self.padding} its {x.shape[-2]} x {x.shape[-1]} pixels hold no window "
                f"of {self.kernel_size} x {self.kernel_size}"
            )
        return self._pool(x)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class SpatialMaxPool2d(_SpatialPool2d):
    """Maximum over k x k pixels of each plane.

    Equivariant, then to the bit, where (i + 2·padding − k) is a multiple of the stride for maps of size i (paper 3).

    Args:
        kernel_size: k, in pixels.
        stride: in pixels; k by default.
        padding: in pixels, with −∞.

    Shapes: [B, C, |P|, H, W] -> [B, C, |P|, H', W'].
    """

    def _pool(self, x: Tensor) -> Tensor:
        return by_planes(lambda planes: F.max_pool2d(planes, self.kernel_size, self.stride, self.padding), x)


class SpatialAvgPool2d(_SpatialPool2d):
    """Mean over k x k pixels of each plane, padding counted.

    Equivariant, then to the bit, where (i + 2·padding − k) is a multiple of the stride for maps of size i (paper 3):
    the k² pixels are summed in an order that no turn or reflection changes.

    Args:
        kernel_size: k, in pixels.
        stride: in pixels; k by default.
        padding: in pixels, with zeros.

    Shapes: [B, C, |P|, H, W] -> [B, C, |P|, H', W'].
    """

    def _pool(self, x: Tensor) -> Tensor:
        total = window_sum(widened(x), [1] * self.kernel_size**2, self.stride, self.padding)
        return (total / self.kernel_size**2).to(x.dtype)
