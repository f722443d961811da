"""Argument checks shared by the functions and the layers: every refusal names the argument, what came and what was
expected, before anything runs."""

from __future__ import annotations

import torch
from torch import Tensor

from .groups import PointGroup

RELAX_ON = ("input", "output")
ACTIVATIONS = (None, "relu")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def check_tensor(name: str, tensor: object, dim: int, layout: str) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor {layout}, got {type(tensor).__name__}")
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "a nested one" if tensor.is_nested else f"layout {tensor.layout}"
        raise TypeError(f"{name} must be a dense tensor {layout}, got {kind}")
    if tensor.dim() != dim:
        raise ValueError(f"{name} must have {dim} dimensions {layout}, got shape {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        instead = "; quantise gconv_ext.to_conv2d(model) in place of the model" if tensor.is_quantized else ""
        raise TypeError(f"{name} must have a real floating-point dtype, got {tensor.dtype}{instead}")
    if tensor.dtype.itemsize < 2:
        raise TypeError(f"{name} must have a floating-point dtype of at least 16 bits, got {tensor.dtype}")
    return tensor


def check_image(x: Tensor, channels: int) -> None:
    check_tensor("x", x, 4, "[B, C, H, W]")
    if x.shape[1] != channels:
        raise ValueError(f"x must have {channels} channels in [B, C, H, W], got shape {tuple(x.shape)}")


def check_positive(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def as_pair(name: str, value: object, minimum: int, group: PointGroup) -> tuple[int, int]:
    """`value` as (rows, columns).  A group with quarter turns needs both the same."""
    if type(value) is int and minimum <= value < 2**31:  # nearly always this or,
        return value, value
    if type(value) is tuple and len(value) == 2:  # from a layer, this
        rows, columns = value
        if type(rows) is int and type(columns) is int and minimum <= rows == columns < 2**31:
            return value
    pair = (value, value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(pair, (tuple, list)) or not all(isinstance(v, int) and not isinstance(v, bool) for v in pair):
        raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}")
    if len(pair) != 2:
        raise ValueError(f"{name} must be an int or a pair of ints, got {value!r}")
    if min(pair) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}")
    if max(pair) >= 2**31:
        raise ValueError(f"{name} must be below 2^31, got {value!r}")
    if pair[0] != pair[1] and group.has_quarter_turn:
        raise ValueError(
            f"{name} must be the same for rows and columns, because {group.name} exchanges them, got {value!r}"
        )
    return pair[0], pair[1]


def check_relax_on(relax_on: str, lifting: bool) -> None:
    if relax_on not in RELAX_ON:
        raise ValueError(f"relax_on must be 'input' or 'output', got {relax_on!r}")
    if lifting and relax_on == "input":
        raise ValueError(
            "relax_on='input' needs a group axis on the input, and an image has none: "
            "a relaxed lifting convolution takes relax_on='output'"
        )


def check_activation(activation: object) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be None or 'relu', got {activation!r}")


def check_filter_bank(
    weight: Tensor, relaxed_weight: Tensor | None, group: PointGroup, lifting: bool, relaxed: bool,
    layout: str | None = None,
) -> None:  # fmt: skip
    layout = layout or f"[{'L, ' if relaxed else ''}C_out, C_in, {'' if lifting else '|P|, '}k, k]"
    dim = 4 + relaxed + (not lifting)
    check_tensor("weight", weight, dim, layout)
    if not lifting and weight.shape[-3] != group.order:
        raise ValueError(
            f"weight must have |P| = {group.order} relative elements of {group.name} in {layout}, "
            f"got shape {tuple(weight.shape)}"
        )
    if 0 in weight.shape[: dim - 2]:
        raise ValueError(f"weight must have at least one bank and field in {layout}, got shape {tuple(weight.shape)}")
    if weight.shape[-1] != weight.shape[-2] or weight.shape[-1] < 1:
        raise ValueError(f"weight must have a square kernel k x k in {layout}, got shape {tuple(weight.shape)}")
    if relaxed:
        relaxed_weight = check_tensor("relaxed_weight", relaxed_weight, 2, "[L, |P|]")
        expected = (weight.shape[0], group.order)
        if tuple(relaxed_weight.shape) != expected:
            raise ValueError(
                f"relaxed_weight must have shape [L, |P|] = {list(expected)}, got {list(relaxed_weight.shape)}"
            )
        check_like("relaxed_weight", relaxed_weight, "weight", weight)


def check_like(name: str, tensor: Tensor, other_name: str, other: Tensor, autocast_casts: bool = False) -> None:
    """Same device, and the same dtype unless autocast is on and will cast both."""
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on {other_name}'s device {other.device}, got {tensor.device}")
    if tensor.dtype != other.dtype and not (autocast_casts and torch.is_autocast_enabled(other.device.type)):
        raise TypeError(f"{name} must have {other_name}'s dtype {other.dtype}, got {tensor.dtype}")


def check_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, group: PointGroup, lifting: bool, stride: tuple[int, int],
    padding: tuple[int, int], dilation: tuple[int, int], groups: int,
) -> None:  # fmt: skip
    """x, bias and the sizes, once the filter bank itself is known to be right."""
    _check_map(x, weight, group, lifting)
    banks = weight.dim() - x.dim()  # 1 when there is an axis of banks
    out_fields, in_fields = weight.shape[banks], weight.shape[banks + 1]
    if out_fields % groups:
        raise ValueError(f"groups must divide C_out = {out_fields}, got {groups}")
    if x.shape[1] != in_fields * groups:
        raise ValueError(
            f"x must have C_in = {in_fields * groups} fields ({in_fields} of weight x groups = {groups}), "
            f"got {x.shape[1]} in shape {tuple(x.shape)}"
        )
    _check_bias(bias, weight, out_fields)
    for axis, name in enumerate(("H", "W")):
        reach = dilation[axis] * (weight.shape[-1] - 1) + 1
        size = x.shape[x.dim() - 2 + axis] + 2 * padding[axis]
        if size < reach:
            raise ValueError(
                f"x is too small: {name} = {x.shape[x.dim() - 2 + axis]} with padding {padding[axis]} gives {size}, and the "
                f"kernel (k = {weight.shape[-1]}, dilation {dilation[axis]}) needs at least {reach}"
            )


def check_transposed_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, group: PointGroup, stride: tuple[int, int],
    padding: tuple[int, int], output_padding: tuple[int, int], dilation: tuple[int, int], groups: int,
) -> tuple[int, int]:  # fmt: skip
    """x, bias and the sizes of a transposed convolution, as check_convolution; (H', W') of the result."""
    _check_map(x, weight, group, lifting=False)
    check_positive("groups", groups)
    if weight.shape[0] % groups:
        raise ValueError(f"groups must divide C_in = {weight.shape[0]}, got {groups}")
    if x.shape[1] != weight.shape[0]:
        raise ValueError(f"x must have C_in = {weight.shape[0]} fields, as weight, got shape {tuple(x.shape)}")
    _check_bias(bias, weight, weight.shape[1] * groups)
    check_output_padding(output_padding, stride)
    height, width = (
        (n - 1) * s - 2 * p + d * (weight.shape[-1] - 1) + 1 + extra
        for n, s, p, d, extra in zip(x.shape[-2:], stride, padding, dilation, output_padding)
    )
    if min(height, width) < 1 or min(x.shape[-2:]) < 1:
        given = f"{x.shape[-2]} x {x.shape[-1]} with padding {padding}"
        raise ValueError(f"x is too small: {given} gives {height} x {width}")
    return height, width


def check_output_padding(output_padding: tuple[int, int], stride: tuple[int, int]) -> None:
    if any(extra >= step for extra, step in zip(output_padding, stride)):
        raise ValueError(f"output_padding must be less than the stride {stride}, got {output_padding}")


def _check_map(x: Tensor, weight: Tensor, group: PointGroup, lifting: bool) -> None:
    check_tensor("x", x, 4 if lifting else 5, "[B, C_in, H, W]" if lifting else "[B, C_in, |P|, H, W]")
    if not lifting and x.shape[2] != group.order:
        raise ValueError(
            f"x must have |P| = {group.order} elements of {group.name} in [B, C_in, |P|, H, W], "
            f"got shape {tuple(x.shape)}"
        )
    check_like("x", x, "weight", weight, autocast_casts=True)


def _check_bias(bias: Tensor | None, weight: Tensor, out_fields: int) -> None:
    if bias is None:
        return
    check_tensor("bias", bias, 1, "[C_out]")
    if bias.shape[0] != out_fields:
        raise ValueError(f"bias must have shape [C_out] = [{out_fields}], one number a field, got {list(bias.shape)}")
    check_like("bias", bias, "weight", weight, autocast_casts=True)
