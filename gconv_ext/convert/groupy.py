"""Layers in GrouPy's style, maps [B, C, |P|, H, W], recognised by their names and attributes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import GroupConv2d, LiftingConv2d, SpatialMaxPool2d
from .report import NotConverted

_CONVOLUTIONS = {
    "P4ConvZ2": (LiftingConv2d, "C4"),
    "P4ConvP4": (GroupConv2d, "C4"),
    "P4MConvZ2": (LiftingConv2d, "D4"),
    "P4MConvP4M": (GroupConv2d, "D4"),
}
# GrouPy's element 4·1 + k turns k times and then exchanges top and bottom, which is r² m here: r² m · r^k = r^(2−k) m.
_ORDER = {"C4": None, "D4": [0, 1, 2, 3, 6, 5, 4, 7]}
_LARGEST_ERROR = 1e-10  # of their outputs in float64


class ReorderedLayer(nn.Module):
    """A layer of this package between maps whose elements stand in another order, [B, C, |P|, H, W].

    Args:
        layer: takes and returns maps in this package's order; an image has none.
        order: for each element of the other order its place in this package's, which is the same list both ways.
    """

    order: Tensor

    def __init__(self, layer: nn.Module, order: list[int]):
        super().__init__()
        self.layer = layer
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x if x.dim() == 4 else x.index_select(2, self.order)).index_select(2, self.order)


def converter(module: nn.Module) -> Callable[[nn.Module], tuple[nn.Module, str]] | None:
    """What makes (the module in this one's place, a note for the report), or raises NotConverted; None where this file
    knows no such module."""
    name = type(module).__name__
    if name in _CONVOLUTIONS:
        return _convolution
    return _pooling if name == "PlaneGroupSpatialMaxPool" else None


def _convolution(module: Any) -> tuple[nn.Module, str]:
    kind, group = _CONVOLUTIONS[type(module).__name__]
    order = _ORDER[group]
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    elements = 1 if kind is LiftingConv2d else len(order or range(4))
    if not isinstance(weight, Tensor) or weight.dim() != 5 or weight.shape[2] != elements:
        raise NotConverted(f"its weight is not [out, in, {elements}, k, k]")
    out_fields, in_fields, _, size, _ = weight.shape
    try:
        layer = kind(
            in_fields, out_fields, size, group, module.stride, module.padding, bias=bias is not None,
            device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
    except (AttributeError, TypeError, ValueError) as reason:
        raise NotConverted(str(reason)) from None
    bank = weight.detach() if order is None or elements == 1 else weight.detach()[:, :, order]
    layer.weight.data.copy_(bank.squeeze(2) if elements == 1 else bank)
    layer.weight.requires_grad_(weight.requires_grad)
    if bias is not None and layer.bias is not None:
        layer.bias.data.copy_(bias.detach().flatten())
        layer.bias.requires_grad_(bias.requires_grad)
    replacement = layer if order is None else ReorderedLayer(layer, order).to(weight.device)
    try:
        error = _difference(copy.deepcopy(module).double(), copy.deepcopy(replacement).double(), weight)
    except (AttributeError, RuntimeError, TypeError, ValueError) as reason:  # another's class of the same name
        raise NotConverted(f"it does not take GrouPy's maps: {reason}") from None
    if not error < _LARGEST_ERROR:
        raise NotConverted(f"its outputs are not those of GrouPy's layer: they differ by {error:.0e}")
    return replacement, ""


def _difference(module: nn.Module, replacement: nn.Module, weight: Tensor) -> float:
    """max |difference| of the two outputs for one random map in float64, relative to the largest output."""
    size = weight.shape[-1] + 3
    shape = (1, weight.shape[1], *((weight.shape[2],) if weight.shape[2] > 1 else ()), size, size)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(weight.device, torch.float64)
    with torch.no_grad():
        want, got = module(x), replacement(x)
    return float((got - want).abs().max() / want.abs().max()) if got.shape == want.shape else float("inf")


def _pooling(module: Any) -> tuple[nn.Module, str]:
    try:
        return SpatialMaxPool2d(module.kernel_size, module.stride, module.padding), ""
    except (AttributeError, TypeError, ValueError) as reason:
        raise NotConverted(str(reason)) from None
