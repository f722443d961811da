"""Convolutions with relaxed translation: L filter banks, weighted at each output pixel (Wang, Walters & Yu 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .. import checks, functional
from ..groups import PointGroup, move_space
from .conv import _Conv2d


class _RelaxedTranslation2d(_Conv2d):
    """What the layers share: the weights over pixels, their penalty, the sum over the banks."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, output_size: int | tuple[int, int],
        group: PointGroup | str = "C4", stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        algorithm: str = "auto", device: torch.device | str | None = None, dtype: torch.dtype | None = None,
        num_filter_banks: int = 1, activation: str | None = None,
    ):  # fmt: skip
        checks.check_positive("num_filter_banks", num_filter_banks)
        super().__init__(
            in_channels, out_channels, kernel_size, group, stride, padding, dilation, groups, bias, padding_mode,
            algorithm, activation, device, dtype, num_filter_banks=num_filter_banks,
        )  # fmt: skip
        self.output_size = checks.as_pair("output_size", output_size, 1, self.group)
        self.num_filter_banks = num_filter_banks
        self.relaxed_weight = nn.Parameter(torch.empty(num_filter_banks, *self.output_size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Relaxed weights all 1/L, banks √L times a strict layer's, as RelaxedGroupConv2d: exactly equivariant."""
        super().reset_parameters()
        with torch.no_grad():
            self.weight.mul_(math.sqrt(self.num_filter_banks))
        nn.init.constant_(self.relaxed_weight, 1 / self.num_filter_banks)

    def equivariance_penalty(self) -> Tensor:
        """Σ_l Σ_{p,q} |w_l(p) − w_l(q)| over all ordered pairs of pixels (paper 1, Eq. 7, without its factor α, with
        the translations as the group); it grows as the square of the number of pixels.

        Returns:
            A scalar tensor; 0 exactly when the layer is equivariant.
        """
        weights = self.relaxed_weight.flatten(1)
        values = weights.detach()
        # |a − b| is the larger minus the smaller: each weight counts by how many lie below it less how many lie above,
        # and a sort finds these without forming the pairs.  Equal weights have slope 0, as in |·|.
        ordered = values.sort(1).values
        below = torch.searchsorted(ordered, values)
        above = values.shape[1] - torch.searchsorted(ordered, values, right=True)
        return (2 * (below - above) * (weights - values[:, :1])).sum()

    def banks(self) -> Tensor:
        """All banks side by side in the output fields, those of a block of fields in their block."""
        return self.weight.unflatten(1, (self.groups, -1)).transpose(0, 1).flatten(0, 2)

    def pixel_weights(self) -> Tensor:
        """The weights of each bank, carried along by each output element: [L, |P|, H', W']."""
        return torch.stack([move_space(self.relaxed_weight, self.group, u) for u in range(self.group.order)], 1)

    def forward(self, x: Tensor) -> Tensor:
        layout = "[B, C_in, H, W]" if self._lifting else "[B, C_in, |P|, H, W]"
        checks.check_tensor("x", x, 4 if self._lifting else 5, layout)
        size = tuple(
            (n + 2 * p - d * (self.kernel_size - 1) - 1) // s + 1
            for n, p, d, s in zip(x.shape[-2:], self.padding, self.dilation, self.stride)
        )
        if size != self.output_size:
            raise ValueError(
                f"x must give output_size = {self.output_size}, the pixels that have weights, "
                f"got {size} from {tuple(x.shape[-2:])}"
            )
        convolve = functional.lifting_conv2d if self._lifting else functional.group_conv2d
        by_bank = convolve(self._pad(x), self.banks(), **self._options() | {"activation": None})
        by_bank = by_bank.unflatten(1, (self.groups, self.num_filter_banks, -1))
        weights = self.pixel_weights().to(by_bank.dtype)
        y = sum(by_bank[:, :, l] * weights[l] for l in range(self.num_filter_banks)).flatten(1, 2)  # noqa: E741
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)[:, None, None, None]
        return y.relu() if self.activation == "relu" else y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, output_size={self.output_size}, num_filter_banks={self.num_filter_banks}"


class RelaxedTranslationConv2d(_RelaxedTranslation2d):
    """Planar convolution with relaxed translation (Wang, Walters & Yu 2022; paper 1, Eqs. 5 and 6 on the group of
    translations, with the weights at the output pixel, as in the published code):

        y[o, p] = bias[o] + Σ_l relaxed_weight[l, p] · Σ_c Σ_t weight[l, o, c, t] · x[c, p + t]

    Starts exactly translation-equivariant, as torch.nn.Conv2d is: relaxed weights all 1/L.  L times a Conv2d's
    multiplications.

    Args:
        in_channels, out_channels: channels.
        kernel_size … activation: as for LiftingConv2d.
        output_size: (H', W') of the result, whose pixels have weights of their own, or an int for both.
        num_filter_banks: L.

    Shapes: x [B, in_channels, H, W] -> [B, out_channels, H', W'].
    Parameters: weight [L, out_channels, in_channels / groups, k, k], relaxed_weight [L, H', W'], bias [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    _lifting = True  # to the group that has the identity alone

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, output_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", algorithm: str = "auto",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None, num_filter_banks: int = 1,
        activation: str | None = None,
    ):  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, output_size, "C1", stride, padding, dilation, groups, bias,
            padding_mode, algorithm, device, dtype, num_filter_banks, activation,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze(2)


class RelaxedTranslationLiftingConv2d(_RelaxedTranslation2d):
    """Lifting convolution with relaxed translation and strict rotations and reflections: the map of weights is carried
    along by the output element u,

        y[o, u, p] = bias[o] + Σ_l relaxed_weight[l, u⁻¹p] · Σ_c Σ_t weight[l, o, c, u⁻¹t] · x[c, p + t]

    with pixels counted from the centre of the image.  Exactly equivariant under the group about that centre, whatever
    the weights, where the convolution itself is; under translations where relaxed_weight[l, ·] is constant, as at the
    start.

    Args: as for RelaxedTranslationConv2d; group: a PointGroup or its name; output_size must be square where the group
        has quarter turns.

    Shapes: x [B, in_channels, H, W] -> [B, out_channels, |P|, H', W'].
    Parameters: weight [L, out_channels, in_channels / groups, k, k], relaxed_weight [L, H', W'], bias [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    _lifting = True


class RelaxedTranslationGroupConv2d(_RelaxedTranslation2d):
    """Group convolution with relaxed translation and strict rotations and reflections, as
    RelaxedTranslationLiftingConv2d:

        y[o, u, p] = bias[o] + Σ_l relaxed_weight[l, u⁻¹p] · Σ_c Σ_v Σ_t weight[l, o, c, u⁻¹v, u⁻¹t] · x[c, v, p + t]

    Args: as for RelaxedTranslationLiftingConv2d; channels count fields.

    Shapes: x [B, in_channels, |P|, H, W] -> [B, out_channels, |P|, H', W'].
    Parameters: weight [L, out_channels, in_channels / groups, |P|, k, k], relaxed_weight [L, H', W'], bias
        [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    _lifting = False
