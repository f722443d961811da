"""The definition in plain PyTorch: any device, any dtype, no compiled code.  Everything else is tested against it.

    y[o, u, p] = bias[o] + Σ_c Σ_v Σ_t ψ[o, c, u⁻¹v, u⁻¹t] · x[c, v, p + t]        (Cohen & Welling 2016, Eq. 11)

The bank that output element u correlates with is ψ moved by u, (u·ψ)[v, t] = ψ[u⁻¹v, u⁻¹t], so the whole convolution is
one planar convolution whose filter stacks the |P| moved banks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .groups import PointGroup, move_feature_map, move_space
from .memory_format import planes_of


def expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: PointGroup, relax_on: str, lifting: bool) -> Tensor:
    """The dense filter [|P|·C_out, (|P|·)C_in, k, k]; shapes as in functional.expand_filter, unchecked."""
    move = move_space if lifting else move_feature_map
    rows = []
    for u in range(group.order):
        bank = move(weight, group, u)
        if relaxed_weight is not None:
            factor = relaxed_weight[:, u, None] if relax_on == "output" else relaxed_weight  # [L, 1] or [L, |P|]
            factor = factor[:, None, None, :, None, None]
            bank = (factor * (bank.unsqueeze(3) if lifting else bank)).sum(0)
            bank = bank.squeeze(2) if lifting else bank
        rows.append(bank)
    filter = torch.stack(rows, dim=1).flatten(0, 1)  # [C_out · |P|, C_in, (|P|,) k, k]
    return filter if lifting else filter.flatten(1, 2)


def correlate(
    x: Tensor, filter: Tensor, bias: Tensor | None, group: PointGroup, stride: tuple[int, int],
    padding: tuple[int, int], dilation: tuple[int, int], groups: int,
) -> Tensor:  # fmt: skip
    """Planar convolution of a map with fields and elements as channels.

    x [B, C_in, (|P|,) H, W], filter [|P|·C_out, (|P|·)C_in/groups, k, k], result [B, C_out, |P|, H', W'].
    """
    planes = x if x.dim() == 4 else planes_of(x)
    if bias is not None:
        bias = torch.stack([bias] * group.order, dim=1).flatten()  # repeat_interleave does not compile in PyTorch 2.10
    result = F.conv2d(planes, filter, bias, stride, padding, dilation, groups)
    return result.unflatten(1, (-1, group.order))


def correlate_adjoint(
    x: Tensor, filter: Tensor, size: tuple[int, int], group: PointGroup, stride: tuple[int, int],
    padding: tuple[int, int], dilation: tuple[int, int], groups: int,
) -> Tensor:  # fmt: skip
    """The adjoint of correlate: x [B, C_out, |P|, H', W'] -> [B, C_in, |P|, *size]; filter as there."""
    reached = [
        (n - 1) * s - 2 * p + d * (filter.shape[-1] - 1) + 1
        for n, s, p, d in zip(x.shape[-2:], stride, padding, dilation)
    ]
    beyond = [n - m for n, m in zip(size, reached)]
    result = F.conv_transpose2d(planes_of(x), filter, None, stride, padding, beyond, groups, dilation)
    return result.unflatten(1, (-1, group.order))
