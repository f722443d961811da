"""Convolutions by our own kernels, any family of ops.py.

irrep: block-diagonal over the group's irreps, with 6/16 (C4) or 12/64 (D4) of the multiplications of the dense form, and
conv(g·x) == g·conv(x) to the bit.  A relaxed convolution with L filter banks is a strict one with L times the fields, weighed
in the same pass:

    relax_on="input"    Σ_l fprop(w_l · x, ψ_l)     the banks lie side by side in the input fields, weighed while reading
    relax_on="output"   Σ_l w_l · fprop(x, ψ_l)     the banks lie side by side in the output fields, summed while writing

fused: the dense form in one kernel, which rotates the filter bank, forms the relaxed sum and correlates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import autograd, ops
from .kept import Kept

_kept_transform = Kept(lambda weight, relaxed_weight, kernels, *options: ops.transform_weight(kernels, weight, relaxed_weight, *options))


def conv2d(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, relu: bool, free: bool, keep: bool,
    options: autograd.ConvOptions,
) -> Tensor:  # fmt: skip
    """Shapes as in functional, unchecked; `relu` is applied in the same pass.  `free`: kept.derivative_free of all tensors;
    `keep`: kept.may_keep of the weights as well, and so compiled irrep."""
    if keep:
        transformed = _kept_transform(weight, relaxed_weight, options.kernels, options.group, options.relax_on, options.groups)
        return ops.irrep_fprop_of_plain(x, weight, relaxed_weight, bias, transformed, *options[1:], relu)
    if free:  # an autograd.Function would take longer than a small convolution
        return ops.fprop(options.kernels, x, weight, relaxed_weight, bias, None, *options[1:], relu)
    return autograd.conv2d(x, weight, relaxed_weight, bias, relu, options)


def conv_transpose2d(x: Tensor, weight: Tensor, size: tuple[int, int], options: autograd.ConvOptions) -> Tensor:
    """The adjoint of conv2d with a strict group convolution's weight: x, as large as its result, -> [B, C_in, |P|,
    *size]."""
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    return autograd.dgrad(x, weight, None, None, size, *options)
