"""Pooling over the group axis and over space."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_positive, check_tensor

_LAYOUT = "[B, C, |P|, H, W]"


class GroupPool(nn.Module):
    """Coset pooling: drops the group axis, y[b, c, p] = max_h x[b, c, h, p], or the mean.

    Args:
        reduce: "max" or "mean".

    Shapes: [B, C, |P|, H, W] -> [B, C, H, W].
    """

    def __init__(self, reduce: str = "max"):
        super().__init__()
        if reduce not in ("max", "mean"):
            raise ValueError(f"reduce must be 'max' or 'mean', got {reduce!r}")
        self.reduce = reduce

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        return x.amax(2) if self.reduce == "max" else x.mean(2)

    def extra_repr(self) -> str:
        return f"reduce={self.reduce!r}"


class _SpatialPool2d(nn.Module):
    """Pools each of the C · |P| planes.  Equivariant where (i + 2·padding − k) is a multiple of the stride (paper 3)."""

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0):
        super().__init__()
        self.kernel_size = check_positive("kernel_size", kernel_size)
        self.stride = check_positive("stride", kernel_size if stride is None else stride)
        if not isinstance(padding, int) or not 0 <= padding <= kernel_size // 2:
            raise ValueError(f"padding must be an int from 0 to kernel_size / 2 = {kernel_size // 2}, got {padding!r}")
        self.padding = padding

    def _pool(self, planes: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        return self._pool(x.flatten(1, 2)).unflatten(1, x.shape[1:3])

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class SpatialMaxPool2d(_SpatialPool2d):
    """Maximum over k x k pixels of each plane.

    Args:
        kernel_size: k, in pixels.
        stride: in pixels; k by default.
        padding: in pixels, with −∞.

    Shapes: [B, C, |P|, H, W] -> [B, C, |P|, H', W'].
    """

    def _pool(self, planes: Tensor) -> Tensor:
        return F.max_pool2d(planes, self.kernel_size, self.stride, self.padding)


class SpatialAvgPool2d(_SpatialPool2d):
    """Mean over k x k pixels of each plane, padding counted.

    Args:
        kernel_size: k, in pixels.
        stride: in pixels; k by default.
        padding: in pixels, with zeros.

    Shapes: [B, C, |P|, H, W] -> [B, C, |P|, H', W'].
    """

    def _pool(self, planes: Tensor) -> Tensor:
        return F.avg_pool2d(planes, self.kernel_size, self.stride, self.padding)


class SpatialGlobalPool2d(nn.Module):
    """Pools each plane to one pixel: y[b, c, h] = max_p x[b, c, h, p], or the mean.

    Equivariant for maps of every size, and exact to the bit: the mean is summed in an order that no turn or reflection
    changes.

    Args:
        reduce: "max" or "mean".

    Shapes: [B, C, |P|, H, W] -> [B, C, |P|, 1, 1].
    """

    def __init__(self, reduce: str = "max"):
        super().__init__()
        if reduce not in ("max", "mean"):
            raise ValueError(f"reduce must be 'max' or 'mean', got {reduce!r}")
        self.reduce = reduce

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        if self.reduce == "max":
            return x.amax((-2, -1), keepdim=True)
        # Addition commutes to the bit: each line makes the plane symmetric in one more way; then the order is free.
        height, width = x.shape[-2:]
        folded = x + x.flip(-2, -1)
        folded = folded + folded.flip(-1)
        if height == width:
            folded = folded + folded.mT
        elif height > width:
            folded = folded.mT
        copies = 8 if height == width else 4
        return (folded.contiguous().flatten(3).sum(3) / (copies * height * width))[..., None, None]

    def extra_repr(self) -> str:
        return f"reduce={self.reduce!r}"
