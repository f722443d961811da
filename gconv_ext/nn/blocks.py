"""Residual blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks
from ..groups import PointGroup
from .conv import GroupConv2d
from .norm import GroupBatchNorm2d


class _ResidualBlock2d(nn.Module):
    """The two blocks are one equation; subclasses give the convolution and the normalisation."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, conv: Callable[..., nn.Module],
        norm: Callable[[int], nn.Module],
    ):  # fmt: skip
        super().__init__()
        self.in_channels = checks.check_positive("in_channels", in_channels)
        self.out_channels = checks.check_positive("out_channels", out_channels)
        self.stride = checks.check_positive("stride", stride)
        self.norm1, self.norm2 = norm(in_channels), norm(out_channels)
        self.conv1 = conv(in_channels, out_channels, 3, stride=stride, padding=1)
        self.conv2 = conv(out_channels, out_channels, 3, padding=1)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(conv(in_channels, out_channels, 1, stride=stride), norm(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv1(self.relu(self.norm1(x)))
        return self.conv2(self.relu(self.norm2(branch))) + self.shortcut(x)


class GroupResidualBlock2d(_ResidualBlock2d):
    """Pre-activation residual block (He et al. 2016, «Identity Mappings») over a group, as in paper 3's ResNets:

        y = conv2(relu(norm2(conv1(relu(norm1(x)))))) + shortcut(x)

    conv1 and conv2 are 3 x 3 group convolutions with padding 1, without bias, conv1 with the stride.  The shortcut is
    x, or, where stride or fields change, a 1 x 1 group convolution with the same stride and a normalisation.  Both
    sample the same grid: the block is exactly equivariant where (i − 1) mod stride = 0 (paper 3, Eq. 3 with padding).

    Args:
        in_channels, out_channels: fields.
        group: a PointGroup or its name.
        stride: in pixels.
        algorithm: see gconv_ext.functional.

    Shapes: x [B, in_channels, |P|, H, W] -> [B, out_channels, |P|, ⌈H / stride⌉, ⌈W / stride⌉].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    def __init__(
        self, in_channels: int, out_channels: int, group: PointGroup | str = "C4", stride: int = 1,
        algorithm: str = "auto", device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ):  # fmt: skip
        factory: dict[str, Any] = dict(device=device, dtype=dtype)
        conv = partial(GroupConv2d, group=group, bias=False, algorithm=algorithm, **factory)
        super().__init__(in_channels, out_channels, stride, conv, partial(GroupBatchNorm2d, **factory))


class ResidualBlock2d(_ResidualBlock2d):
    """GroupResidualBlock2d without a group, its Z2 counterpart, of torch.nn.Conv2d and torch.nn.BatchNorm2d.

    Args: as for GroupResidualBlock2d; channels count channels.

    Shapes: x [B, in_channels, H, W] -> [B, out_channels, ⌈H / stride⌉, ⌈W / stride⌉].
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):  # fmt: skip
        factory: dict[str, Any] = dict(device=device, dtype=dtype)
        conv = partial(nn.Conv2d, bias=False, **factory)
        super().__init__(in_channels, out_channels, stride, conv, partial(nn.BatchNorm2d, **factory))
