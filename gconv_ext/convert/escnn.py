"""Modules of escnn and e2cnn.  Both are recognised by name, and neither is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from ..groups import PointGroup, move_space
from ..nn import (
    GroupBatchNorm2d,
    GroupConv2d,
    GroupPool,
    LiftingConv2d,
    SpatialAvgPool2d,
    SpatialFilterPool2d,
    SpatialGlobalPool2d,
    SpatialMaxPool2d,
)
from .fields import Fields, fields, subgroup
from .report import NotConverted

_PACKAGES = ("escnn", "e2cnn")
# A filter of a peer that is further from symmetry, relative to its largest tap, is not what its field types say.
_LARGEST_ERROR = 1e-3


class GeometricLayer(nn.Module):
    """A layer of this package behind the interface of an escnn or e2cnn module: GeometricTensor in and out.

    Args:
        layer: takes and returns [B, C, |P|, H, W], or images [B, C, H, W].
        module: the module in whose place it stands, with its in_type and out_type.
        elements: numbers a field of the layer's input, |P|; None for an image.
        in_order, out_order: the peer's channels in the order that the layer has them; None for the same order.
    """

    def __init__(
        self, layer: nn.Module, module: nn.Module, elements: int | None, in_order: list[int] | None = None,
        out_order: list[int] | None = None,
    ):  # fmt: skip
        super().__init__()
        self.layer = layer
        self.in_type, self.out_type = module.in_type, module.out_type
        self.elements = elements
        inverse = None if out_order is None else torch.tensor(out_order).argsort().tolist()
        for name, order in (("in_order", in_order), ("out_order", inverse)):
            moves = order is not None and order != sorted(order)
            device = next((p.device for p in module.parameters()), None)
            self.register_buffer(name, torch.tensor(order, device=device) if moves else None, persistent=False)

    def forward(self, x: Any) -> Any:
        if x.type is not self.in_type and x.type != self.in_type:
            raise ValueError(f"x must have the field type {self.in_type}, got {x.type}")
        if getattr(x, "coords", None) is not None:
            raise ValueError("x must lie on a pixel grid, got points with coordinates")
        y = x.tensor if self.in_order is None else x.tensor.index_select(1, self.in_order)
        y = self.layer(y if self.elements is None else y.unflatten(1, (-1, self.elements)))
        if y.dim() == 5:
            # Not flatten: were this a view to autograd, a ReLU in place after it would copy whole maps and gradients.
            y = torch.ops.aten._unsafe_view(y, (y.shape[0], y.shape[1] * y.shape[2], *y.shape[3:]))
        return type(x)(y if self.out_order is None else y.index_select(1, self.out_order), self.out_type)


def converter(module: nn.Module) -> Callable[[nn.Module], tuple[nn.Module, str]] | None:
    """What makes (the module in this one's place, a note for the report), or raises NotConverted; None where this file
    knows no such module."""
    return _CONVERTERS.get(type(module).__name__) if _of_peer(module) else None


def is_type(value: object) -> bool:
    """Whether it is a field type or a G-space."""
    return _of_peer(value) and (hasattr(value, "representations") or hasattr(value, "fibergroup"))


def is_sequence(module: nn.Module) -> bool:
    return _of_peer(module) and type(module).__name__ == "SequentialModule"


def join_activation(norm: object, relu: object) -> bool:
    """Has a converted batch norm apply the converted ReLU behind it; whether they are such."""
    if not (isinstance(norm, GeometricLayer) and isinstance(norm.layer, GroupBatchNorm2d)):
        return False
    if not (isinstance(relu, GeometricLayer) and isinstance(relu.layer, nn.ReLU)):
        return False
    norm.layer.activation, relu.layer = "relu", nn.Identity().train(relu.training)
    return True


def _of_peer(value: object) -> bool:
    return type(value).__module__.split(".")[0] in _PACKAGES


def _convolution(module: Any) -> tuple[nn.Module, str]:
    part = subgroup(module.in_type.gspace)
    group = part.group
    source, target = fields(module.in_type, part), fields(module.out_type, part)
    if source is None:
        raise NotConverted(f"its input fields are neither all trivial nor all regular: {module.in_type}")
    if target is None or not target.regular:
        raise NotConverted(f"its output fields are not all regular: {module.out_type}")

    with torch.no_grad():
        dense, bias = module.expand_parameters()
        dense = _in_our_order(dense, source, target, group)
        weight = _filter_bank(dense, group, source.regular)
        error = _asymmetry(dense, weight, group)
        if bias is not None:
            bias = bias[target.order].unflatten(0, (-1, group.order)).mean(1)
    if not error < max(_LARGEST_ERROR, 4 * torch.finfo(dense.dtype).eps):
        raise NotConverted(f"its filters are far from symmetric under {group.name}: by {error:.0e} of the largest tap")

    kind = GroupConv2d if source.regular else LiftingConv2d
    try:
        layer = kind(
            weight.shape[1] * module.groups, weight.shape[0], weight.shape[-1], group, module.stride, module.padding,
            module.dilation, module.groups, bias is not None, module.padding_mode, device=dense.device, dtype=dense.dtype,
        )  # fmt: skip
    except (TypeError, ValueError) as reason:
        raise NotConverted(str(reason)) from None
    _carry_over(layer.weight, weight, module.weights)
    if layer.bias is not None:
        _carry_over(layer.bias, bias, module.bias)
    elements = group.order if source.regular else None
    note = f"filters symmetric under {group.name} " + (f"to {error:.0e}" if error else "to the bit")
    return GeometricLayer(layer, module, elements, source.order, target.order), note


def _carry_over(parameter: nn.Parameter, value: Tensor, was: nn.Parameter) -> None:
    parameter.data.copy_(value)
    parameter.requires_grad_(was.requires_grad)


def _in_our_order(dense: Tensor, source: Fields, target: Fields, group: PointGroup) -> Tensor:
    """[out, in / groups, k, k] -> [C_out, |P|, C_in / groups, |P|, k, k], without the second |P| for an image."""
    rows, columns = (torch.tensor(fields.order, device=dense.device) for fields in (target, source))
    dense = dense[rows][:, columns[: dense.shape[1]]].unflatten(0, (-1, group.order))
    return dense.unflatten(2, (-1, group.order)) if source.regular else dense


def _filter_bank(dense: Tensor, group: PointGroup, regular: bool) -> Tensor:
    """The bank whose expansion is nearest to the dense filter: weight[o, c, h, t] = mean_u dense[o, u, c, u·h, u·t]."""
    moved = []
    for u, part in enumerate(dense.unbind(1)):
        part = part.index_select(2, group.product[u].to(dense.device)) if regular else part
        moved.append(move_space(part, group, int(group.inverse[u])))
    return torch.stack(moved).mean(0)


def _asymmetry(dense: Tensor, weight: Tensor, group: PointGroup) -> float:
    """max |dense − expansion of the bank|, relative to max |dense|."""
    expanded = functional.expand_filter(weight, group=group)
    difference = dense.reshape(expanded.shape) - expanded
    return float(difference.abs().max() / dense.abs().max().clamp_min(torch.finfo(dense.dtype).tiny))


def _check_plane(field_type: Any) -> None:
    if field_type.gspace.dimensionality != 2:
        raise NotConverted(f"its fields do not lie in the plane: {field_type}")


def _field_size(field_type: Any) -> int:
    _check_plane(field_type)
    sizes = {representation.size for representation in field_type.representations}
    if len(sizes) > 1:
        raise NotConverted(f"its fields have several sizes: {field_type}")
    return sizes.pop()


def _batch_norm(module: Any) -> tuple[nn.Module, str]:
    size = _field_size(module.in_type)
    norm = getattr(module, f"batch_norm_[{size}]")
    layer = GroupBatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    tensors = [*norm.parameters(), *norm.buffers()]
    if tensors:
        layer.to(tensors[0].device, tensors[0].dtype)
    layer.load_state_dict(norm.state_dict())
    for ours, was in zip(layer.parameters(), norm.parameters()):
        ours.requires_grad_(was.requires_grad)
    return GeometricLayer(layer, module, size), ""


def _group_pooling(module: Any) -> tuple[nn.Module, str]:
    return GeometricLayer(GroupPool("max"), module, _field_size(module.in_type)), ""


def _relu(module: Any) -> tuple[nn.Module, str]:
    _check_plane(module.in_type)
    return GeometricLayer(nn.ReLU(module._inplace), module, None), ""


def _one(name: str, pair: tuple[int, int]) -> int:
    if pair[0] != pair[1]:
        raise NotConverted(f"{name} differs between rows and columns: {pair}")
    return pair[0]


def _spatial_pooling(
    kind: type[SpatialMaxPool2d | SpatialAvgPool2d],
) -> Callable[[Any], tuple[nn.Module, str]]:
    def convert(module: Any) -> tuple[nn.Module, str]:
        if module.ceil_mode:
            raise NotConverted("ceil_mode")
        if getattr(module, "dilation", (1, 1)) not in (1, (1, 1)):
            raise NotConverted(f"dilation {module.dilation}")
        size, stride, padding = (_one(name, getattr(module, name)) for name in ("kernel_size", "stride", "padding"))
        try:
            layer = kind(size, stride, padding)
        except (TypeError, ValueError) as reason:
            raise NotConverted(str(reason)) from None
        return GeometricLayer(layer, module, 1), ""

    return convert


def _antialiased_pooling(module: Any) -> tuple[nn.Module, str]:
    """By the filter as the peer has it: all channels have the same."""
    taps = module.filter[0, 0].double()
    stride, padding = (_one(name, getattr(module, name)) for name in ("stride", "padding"))
    try:
        layer = SpatialFilterPool2d(taps.tolist(), stride, padding)
    except (TypeError, ValueError) as reason:
        raise NotConverted(str(reason)) from None
    return GeometricLayer(layer, module, 1), ""


def _global_pooling(reduce: str) -> Callable[[Any], tuple[nn.Module, str]]:
    def convert(module: Any) -> tuple[nn.Module, str]:
        if module.output_size not in (1, (1, 1)):
            raise NotConverted(f"output_size {module.output_size}; this package pools to one pixel")
        return GeometricLayer(SpatialGlobalPool2d(reduce), module, 1), ""

    return convert


_POOLING = {
    "PointwiseMaxPool": _spatial_pooling(SpatialMaxPool2d),
    "PointwiseAvgPool": _spatial_pooling(SpatialAvgPool2d),
    "PointwiseAvgPoolAntialiased": _antialiased_pooling,
    "PointwiseAdaptiveMaxPool": _global_pooling("max"),
    "PointwiseAdaptiveAvgPool": _global_pooling("mean"),
}
_CONVERTERS: dict[str, Callable[[Any], tuple[nn.Module, str]]] = {
    "R2Conv": _convolution,
    "InnerBatchNorm": _batch_norm,
    "GroupPooling": _group_pooling,
    "ReLU": _relu,
    **_POOLING,
    **{f"{name}2D": convert for name, convert in _POOLING.items()},
}
