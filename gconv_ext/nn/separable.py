"""Depthwise-separable group convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..groups import PointGroup
from .conv import GroupConv2d


class SeparableGroupConv2d(nn.Module):
    """Depthwise-separable group convolution (Chollet 2017, on a group): each field is convolved alone with a kernel
    over elements and taps, then the fields are mixed pixel by pixel.

        z[c, u, p] = Σ_v Σ_t depthwise[c, u⁻¹v, u⁻¹t] · x[c, v, p + t]
        y[o, u, p] = bias[o] + Σ_c Σ_v pointwise[o, c, u⁻¹v] · z[c, v, p]

    in_channels · |P| · (k² + out_channels) weights in place of in_channels · out_channels · |P| · k².

    Equivariant as GroupConv2d is; algorithm="irrep" to the bit.

    Args:
        in_channels, out_channels, kernel_size, group, padding_mode, algorithm: as for GroupConv2d.
        stride, padding, dilation: of the depthwise convolution.
        bias: whether to add one learned number a field of the result.
        activation: None, or "relu" to return max(y, 0).

    Shapes: x [B, in_channels, |P|, H, W] -> [B, out_channels, |P|, H', W'].
    Parameters: depthwise.weight [in_channels, 1, |P|, k, k], pointwise.weight [out_channels, in_channels, |P|, 1, 1],
        pointwise.bias [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, group: PointGroup | str = "C4",
        stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1,
        bias: bool = True, padding_mode: str = "zeros", algorithm: str = "auto",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None, activation: str | None = None,
    ):  # fmt: skip
        super().__init__()
        shared: dict[str, Any] = dict(group=group, algorithm=algorithm, device=device, dtype=dtype)
        self.depthwise = GroupConv2d(
            in_channels, in_channels, kernel_size, stride=stride, padding=padding, dilation=dilation,
            groups=in_channels, bias=False, padding_mode=padding_mode, **shared,
        )  # fmt: skip
        self.pointwise = GroupConv2d(in_channels, out_channels, 1, bias=bias, activation=activation, **shared)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))
