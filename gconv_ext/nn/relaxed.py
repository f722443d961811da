"""Relaxed convolutions: L filter banks, weighted for each element of the group (Wang, Walters & Yu 2022; paper 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .. import checks, functional
from ..groups import PointGroup
from .conv import _Conv2d


class _RelaxedConv2d(_Conv2d):
    """What the two relaxed convolutions share: the relaxed weights and their penalty."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, group: PointGroup | str = "C4",
        stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", algorithm: str = "auto",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None, num_filter_banks: int = 1,
        relax_on: str = "output", activation: str | None = None,
    ):  # fmt: skip
        checks.check_positive("num_filter_banks", num_filter_banks)
        checks.check_relax_on(relax_on, self._lifting)
        super().__init__(
            in_channels, out_channels, kernel_size, group, stride, padding, dilation, groups, bias, padding_mode,
            algorithm, activation, device, dtype, num_filter_banks=num_filter_banks,
        )  # fmt: skip
        self.num_filter_banks, self.relax_on = num_filter_banks, relax_on
        self.relaxed_weight = nn.Parameter(torch.empty(num_filter_banks, self.group.order, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Relaxed weights all 1/L, banks √L times a strict layer's: exactly equivariant, the summed bank has the variance
        of a strict layer's, and a step of lr in every bank moves it by lr, as Adam moves a strict layer's."""
        super().reset_parameters()
        with torch.no_grad():
            self.weight.mul_(math.sqrt(self.num_filter_banks))
        nn.init.constant_(self.relaxed_weight, 1 / self.num_filter_banks)

    def equivariance_penalty(self) -> Tensor:
        """Σ_l Σ_{g,h} |w_l(g) − w_l(h)| over all ordered pairs of elements (paper 1, Eq. 7, without its factor α).

        Returns:
            A scalar tensor; 0 exactly when the layer is equivariant.
        """
        w = self.relaxed_weight
        return (w[:, :, None] - w[:, None, :]).abs().sum()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_filter_banks={self.num_filter_banks}, relax_on={self.relax_on!r}"


class RelaxedLiftingConv2d(_RelaxedConv2d):
    """Relaxed lifting convolution (Wang, Walters & Yu 2022):

        y[o, u, p] = bias[o] + Σ_c Σ_t Σ_l relaxed_weight[l, u] · weight[l, o, c, u⁻¹t] · x[c, p + t]

    Starts exactly equivariant: relaxed weights all 1/L.

    Args:
        in_channels … activation: as for LiftingConv2d.
        num_filter_banks: L.
        relax_on: "output"; an image has no group axis, so "input" is an error.

    Shapes: x [B, in_channels, H, W] -> [B, out_channels, |P|, H', W'].
    Parameters: weight [L, out_channels, in_channels / groups, k, k], relaxed_weight [L, |P|], bias [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    _lifting = True

    def forward(self, x: Tensor) -> Tensor:
        return functional.relaxed_lifting_conv2d(
            self._pad(x), self.weight, self.relaxed_weight, self.bias, relax_on=self.relax_on, **self._options()
        )


class RelaxedGroupConv2d(_RelaxedConv2d):
    """Relaxed group convolution (Wang, Walters & Yu 2022; paper 1, Eqs. 5 and 6):

        y[o, u, p] = bias[o] + Σ_c Σ_v Σ_t Σ_l w_l · weight[l, o, c, u⁻¹v, u⁻¹t] · x[c, v, p + t]

    with w_l = relaxed_weight[l, v] for relax_on="input" (as the papers write it) and relaxed_weight[l, u] for
    relax_on="output" (as the published code computes it).  Starts exactly equivariant: relaxed weights all 1/L.

    Args:
        in_channels … activation: as for LiftingConv2d; channels count fields.
        num_filter_banks: L.
        relax_on: "input" or "output".

    Shapes: x [B, in_channels, |P|, H, W] -> [B, out_channels, |P|, H', W'].
    Parameters: weight [L, out_channels, in_channels / groups, |P|, k, k], relaxed_weight [L, |P|],
        bias [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    _lifting = False

    def forward(self, x: Tensor) -> Tensor:
        return functional.relaxed_group_conv2d(
            self._pad(x), self.weight, self.relaxed_weight, self.bias, relax_on=self.relax_on, **self._options()
        )
