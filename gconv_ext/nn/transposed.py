"""Transposed group convolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import checks, functional
from ..groups import PointGroup
from .conv import _Conv2d


class GroupConvTranspose2d(_Conv2d):
    """Transposed group convolution, the adjoint of GroupConv2d(out_channels, in_channels, …) with the same weight:

        y[c, v, q] = bias[c] + Σ_o Σ_u Σ_{p, t: p·stride + t = q} weight[o, c, u⁻¹v, u⁻¹t] · x[o, u, p]

    Equivariant for maps of every size where output_padding is 0; algorithm="irrep" to the bit.  With the options of a
    strided GroupConv2d it brings a map back to the size that it came from, given the output_padding that it lost; an
    equivariant one loses none (paper 3).

    Args:
        in_channels, out_channels: fields.
        kernel_size: k; the kernel has k x k taps, even k allowed.
        group: a PointGroup or its name.
        stride, padding, dilation: an int, or (rows, columns), which must agree where the group has quarter turns; those
            of the convolution whose adjoint this is, in pixels.
        output_padding: rows and columns more at one end, less than the stride; they break the equivariance.
        groups: blocks of fields that are convolved apart.
        bias: whether to add one learned number a field.
        algorithm: "auto", "reference", "dense", "irrep", …; see gconv_ext.functional.

    Shapes: x [B, in_channels, |P|, H, W] -> [B, out_channels, |P|, H', W'],
        H' = (H − 1) · stride − 2 · padding + dilation · (k − 1) + 1 + output_padding.
    Parameters: weight [in_channels, out_channels / groups, |P|, k, k], bias [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    _lifting = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, group: PointGroup | str = "C4",
        stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1, groups: int = 1,
        bias: bool = True, algorithm: str = "auto", device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, group, stride, padding, dilation, groups, bias, "zeros", algorithm,
            None, device, dtype,
        )  # fmt: skip
        self.output_padding = checks.as_pair("output_padding", output_padding, 0, self.group)
        checks.check_output_padding(self.output_padding, self.stride)
        # The inputs of one output number, on average over the places of a stride.
        inputs = in_channels // groups * self.group.order * kernel_size**2
        self._fan_in = max(1, inputs / math.prod(self.stride))
        self.reset_parameters()

    def _bank_fields(self) -> tuple[int, int]:
        return self.in_channels, self.out_channels // self.groups

    def forward(self, x: Tensor) -> Tensor:
        return functional.group_conv_transpose2d(
            x, self.weight, self.bias, group=self.group, stride=self.stride, padding=self.padding,
            output_padding=self.output_padding, dilation=self.dilation, groups=self.groups, algorithm=self.algorithm,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", output_padding={self.output_padding}" if any(self.output_padding) else "")
