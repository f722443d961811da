"""The irrep algorithm: block-diagonal over the group's irreps, with 6/16 (C4) or 12/64 (D4) of the multiplications of the
dense form, and conv(g·x) == g·conv(x) to the bit.

A relaxed convolution with L filter banks is a strict one with L times the fields:

    relax_on="input"    Σ_l fprop(w_l · x, ψ_l)     the banks lie side by side in the input fields
    relax_on="output"   Σ_l w_l · fprop(x, ψ_l)     the banks lie side by side in the output fields
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import autograd


def conv2d(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, relax_on: str, relu: bool,
    options: autograd.ConvOptions,
) -> Tensor:  # fmt: skip
    """Shapes as in functional, unchecked; `relu` is applied in the same pass."""
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, relaxed_weight, bias = (t if t is None else t.to(dtype) for t in (x, weight, relaxed_weight, bias))
    if relaxed_weight is None:
        return autograd.irrep_conv2d(x, weight, bias, relu, options)
    tensors = (x, weight, relaxed_weight, bias)
    if x.dtype in (torch.bfloat16, torch.float16):  # the sum over the banks is formed in float32, like every other sum
        tensors = tuple(t if t is None else t.float() for t in tensors)
    return _relaxed_conv2d(*tensors, relax_on, relu, options).to(x.dtype)


def _relaxed_conv2d(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor, bias: Tensor | None, relax_on: str, relu: bool,
    options: autograd.ConvOptions,
) -> Tensor:  # fmt: skip
    banks, groups = relaxed_weight.shape[0], options.groups
    if relax_on == "input":
        weighted = x.unflatten(1, (groups, 1, -1)) * relaxed_weight.view(1, 1, banks, 1, -1, 1, 1)
        return autograd.irrep_conv2d(weighted.flatten(1, 3), weight.movedim(0, 1).flatten(1, 2), bias, relu, options)
    # [L, groups · O', …] -> [groups · L · O', …]: the banks of a block of fields stay in their block.
    side_by_side = weight.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 2)
    by_bank = autograd.irrep_conv2d(x, side_by_side, None, False, options).unflatten(1, (groups, banks, -1))
    y = (by_bank * relaxed_weight.view(1, 1, banks, 1, -1, 1, 1)).sum(2).flatten(1, 2)
    y = y if bias is None else y + bias[:, None, None, None]
    return y.relu() if relu else y
