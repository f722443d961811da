"""Strict convolutions: lifting and group convolution."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import algorithms, checks, functional
from ..groups import PointGroup, as_group
from ..memory_format import by_planes, format_of, in_format


class _Conv2d(nn.Module):
    """What the four convolutions share: options, checks, initialisation, padding.  Subclasses say their equation."""

    _lifting: bool

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, group: PointGroup | str = "C4",
        stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", algorithm: str = "auto",
        activation: str | None = None, device: torch.device | str | None = None, dtype: torch.dtype | None = None, *,
        num_filter_banks: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.group = as_group(group)
        self.in_channels = checks.check_positive("in_channels", in_channels)
        self.out_channels = checks.check_positive("out_channels", out_channels)
        self.kernel_size = checks.check_positive("kernel_size", kernel_size)
        self.stride = checks.as_pair("stride", stride, 1, self.group)
        self.padding = checks.as_pair("padding", padding, 0, self.group)
        self.dilation = checks.as_pair("dilation", dilation, 1, self.group)
        self.groups = checks.check_positive("groups", groups)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"groups must divide {name} = {channels}, got {groups}")
        if padding_mode not in checks.PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {checks.PADDING_MODES}, got {padding_mode!r}")
        self.padding_mode = padding_mode
        algorithms.check_algorithm(algorithm)
        self.algorithm = algorithm
        checks.check_activation(activation)
        self.activation = activation

        bank = (*self._bank_fields(), *(() if self._lifting else (self.group.order,)), kernel_size, kernel_size)
        shape = bank if num_filter_banks is None else (num_filter_banks, *bank)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self._fan_in = math.prod(bank[1:])

    def _bank_fields(self) -> tuple[int, int]:
        return self.out_channels, self.in_channels // self.groups

    def reset_parameters(self) -> None:
        """As torch.nn.Conv2d: uniform in ±1/√fan_in, with fan_in the inputs of one output number."""
        bound = 1 / math.sqrt(self._fan_in)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def _options(self) -> dict[str, Any]:
        zeros = self.padding_mode == "zeros"
        return dict(
            group=self.group, stride=self.stride, padding=self.padding if zeros else 0, dilation=self.dilation,
            groups=self.groups, algorithm=self.algorithm, activation=self.activation,
        )  # fmt: skip

    def _pad(self, x: Tensor) -> Tensor:
        """Applies the padding modes that the convolution itself does not know."""
        if self.padding_mode == "zeros":
            return x
        checks.check_tensor("x", x, 4 if self._lifting else 5, "[B, C_in, H, W]" if self._lifting else "[B, C_in, |P|, H, W]")
        rows, columns = self.padding

        def pad(planes: Tensor) -> Tensor:
            return F.pad(planes, (columns, columns, rows, rows), mode=self.padding_mode)

        return pad(x) if self._lifting else in_format(by_planes(pad, x), format_of(x))

    def extra_repr(self) -> str:
        def plain(pair: tuple[int, int]) -> int | tuple[int, int]:
            return pair[0] if pair[0] == pair[1] else pair

        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, group={self.group.name}"]
        defaults = dict(stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", algorithm="auto", activation=None)
        for name, default in defaults.items():
            value = getattr(self, name)
            value = plain(value) if isinstance(value, tuple) else value
            if value != default:
                parts.append(f"{name}={value}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


class LiftingConv2d(_Conv2d):
    """Lifts an image to a feature map on the group (Cohen & Welling 2016, Eq. 10):

        y[o, u, p] = bias[o] + Σ_c Σ_t weight[o, c, u⁻¹t] · x[c, p + t]

    Args:
        in_channels: channels of the image.
        out_channels: fields of the result; each holds |P| numbers a pixel.
        kernel_size: k; the kernel has k x k taps, even k allowed.
        group: a PointGroup or its name: "C1", "C2", "C4" (p4), "D1", "D2", "D4" (p4m).
        stride, padding, dilation: an int, or (rows, columns), which must agree where the group has quarter turns; in
            pixels.  The layer stays equivariant where (i + 2·padding − dilation·(k − 1) − 1) is a multiple of the
            stride, for an input of size i (paper 3).
        groups: blocks of fields that are convolved apart.
        bias: whether to add one learned number a field.
        padding_mode: "zeros", "reflect", "replicate" or "circular", as in torch.nn.Conv2d.
        algorithm: "auto", "reference", "dense", "irrep", …; see gconv_ext.functional.
        activation: None, or "relu" to return max(y, 0), in the same pass where the algorithm can.

    Shapes: x [B, in_channels, H, W] -> [B, out_channels, |P|, H', W'].
    Parameters: weight [out_channels, in_channels / groups, k, k], bias [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    _lifting = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, group: PointGroup | str = "C4",
        stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", algorithm: str = "auto",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None, activation: str | None = None,
    ):  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, group, stride, padding, dilation, groups, bias, padding_mode,
            algorithm, activation, device, dtype,
        )  # fmt: skip
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return functional.lifting_conv2d(self._pad(x), self.weight, self.bias, **self._options())


class GroupConv2d(_Conv2d):
    """Group convolution (Cohen & Welling 2016, Eq. 11):

        y[o, u, p] = bias[o] + Σ_c Σ_v Σ_t weight[o, c, u⁻¹v, u⁻¹t] · x[c, v, p + t]

    Args: as for LiftingConv2d; channels count fields.

    Shapes: x [B, in_channels, |P|, H, W] -> [B, out_channels, |P|, H', W'].
    Parameters: weight [out_channels, in_channels / groups, |P|, k, k], bias [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    _lifting = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, group: PointGroup | str = "C4",
        stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", algorithm: str = "auto",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None, activation: str | None = None,
    ):  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, group, stride, padding, dilation, groups, bias, padding_mode,
            algorithm, activation, device, dtype,
        )  # fmt: skip
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return functional.group_conv2d(self._pad(x), self.weight, self.bias, **self._options())
