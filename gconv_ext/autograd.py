"""Derivatives of the compiled ops.

Every op here is linear in each of its tensors, and the derivatives of such a family are the family again: derivatives of
every order come from the functions below calling each other.

The expansion F = E(ψ, w) is linear in the filter bank ψ and in the relaxed weights w, so with A and B its two adjoints,

    <E(ψ, w), G> = <ψ, A(G, w)> = <w, B(G, ψ)>,

the derivatives of all three are again E, A and B.  One op computes A and B together.

The irrep algorithm's convolution y = fprop(x, ψ) likewise: <fprop(x, ψ), dy> = <x, dgrad(dy, ψ)> = <ψ, wgrad(x, dy)>.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops


class ExpandFilter(torch.autograd.Function):
    """E(ψ, w): weight, relaxed_weight or None, group name, relax_on -> filter."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight, relaxed_weight, group, relax_on):
        return ops.expand_filter(weight, relaxed_weight, group, relax_on)

    @staticmethod
    def setup_context(ctx, inputs, output):
        weight, relaxed_weight, ctx.group, ctx.relax_on = inputs
        ctx.save_for_backward(weight, relaxed_weight)

    @staticmethod
    def backward(ctx, grad_filter):
        weight, relaxed_weight = ctx.saved_tensors
        mask = ctx.needs_input_grad[:2]
        grads = ExpandFilterBackward.apply(grad_filter, weight, relaxed_weight, ctx.group, ctx.relax_on, *mask)
        return *(grad if needed else None for grad, needed in zip(grads, mask)), None, None


class ExpandFilterBackward(torch.autograd.Function):
    """(A(G, w), B(G, ψ)): grad_filter G, then the arguments of ExpandFilter, then which of the two to compute."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad_filter, weight, relaxed_weight, group, relax_on, need_weight, need_relaxed_weight):
        return ops.expand_filter_backward(
            grad_filter, weight, relaxed_weight, group, relax_on, [need_weight, need_relaxed_weight]
        )

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_filter, weight, relaxed_weight, ctx.group, ctx.relax_on, *ctx.mask = inputs
        ctx.save_for_backward(grad_filter, weight, relaxed_weight)

    @staticmethod
    def backward(ctx, grad_a: Tensor, grad_b: Tensor):
        grad_filter, weight, relaxed_weight = ctx.saved_tensors
        options = (ctx.group, ctx.relax_on)
        # grad_a has the shape of ψ and grad_b that of w: they take the places of ψ and w in E, A and B.
        has_a, has_b = ctx.mask
        d_grad_filter = d_weight = d_relaxed_weight = None
        if ctx.needs_input_grad[0]:
            if has_a:
                d_grad_filter = ExpandFilter.apply(grad_a, relaxed_weight, *options)
            if has_b:
                from_b = ExpandFilter.apply(weight, grad_b, *options)
                d_grad_filter = from_b if d_grad_filter is None else d_grad_filter + from_b
        need_weight = has_b and ctx.needs_input_grad[1]
        need_relaxed_weight = has_a and ctx.needs_input_grad[2]
        if need_weight or need_relaxed_weight:
            d_weight, d_relaxed_weight = ExpandFilterBackward.apply(
                grad_filter, grad_a if has_a else weight, grad_b if has_b else relaxed_weight, *options,
                need_weight, need_relaxed_weight,
            )  # fmt: skip
        return (
            d_grad_filter,
            d_weight if need_weight else None,
            d_relaxed_weight if need_relaxed_weight else None,
            *(None,) * 4,
        )


def expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str) -> Tensor:
    """The compiled expansion, differentiable to every order; shapes as in functional.expand_filter."""
    return ExpandFilter.apply(weight, relaxed_weight, group, relax_on)


class ConvOptions(NamedTuple):
    """What the three passes of a convolution share besides their tensors."""

    group: str
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


# The forwards below name each option, since torch.compile misreads a forward with *options as one that takes ctx.


class IrrepFprop(torch.autograd.Function):
    """fprop(x, ψ) + bias, and ReLU of that when asked: x, weight, bias or None, relu, then ConvOptions -> y."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight, bias, relu, group, stride, padding, dilation, groups):
        return ops.irrep_fprop(x, weight, bias, group, stride, padding, dilation, groups, relu)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, ctx.relu, *ctx.options = inputs
        ctx.save_for_backward(x, weight, output if ctx.relu else None)

    @staticmethod
    def backward(ctx, dy):
        x, weight, y = ctx.saved_tensors
        if ctx.relu:
            dy = torch.ops.aten.threshold_backward(dy, y, 0)
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        dx = irrep_dgrad(dy, weight, tuple(x.shape[-2:]), *ctx.options) if need_x else None
        dweight = IrrepWgrad.apply(x, dy, weight.shape[-1], *ctx.options) if need_weight else None
        return dx, dweight, dy.sum((0, 2, 3, 4)) if need_bias else None, *(None,) * 6


class IrrepDgrad(torch.autograd.Function):
    """dgrad(dy, ψ) of a group convolution: dy, weight, (height, width) of the input, then ConvOptions -> dx."""

    generate_vmap_rule = True

    @staticmethod
    def forward(dy, weight, input_size, group, stride, padding, dilation, groups):
        return ops.irrep_dgrad(dy, weight, group, input_size, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx, inputs, output):
        dy, weight, _, *ctx.options = inputs
        ctx.save_for_backward(dy, weight)

    @staticmethod
    def backward(ctx, grad_dx):
        dy, weight = ctx.saved_tensors
        d_dy = IrrepFprop.apply(grad_dx, weight, None, False, *ctx.options) if ctx.needs_input_grad[0] else None
        d_weight = IrrepWgrad.apply(grad_dx, dy, weight.shape[-1], *ctx.options) if ctx.needs_input_grad[1] else None
        return d_dy, d_weight, *(None,) * 6


class IrrepWgrad(torch.autograd.Function):
    """wgrad(x, dy): x, dy, kernel size, then ConvOptions -> gradient of the weight."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, dy, kernel_size, group, stride, padding, dilation, groups):
        return ops.irrep_wgrad(x, dy, group, kernel_size, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, dy, _, *ctx.options = inputs
        ctx.save_for_backward(x, dy)

    @staticmethod
    def backward(ctx, grad_weight):
        x, dy = ctx.saved_tensors
        d_x = irrep_dgrad(dy, grad_weight, tuple(x.shape[-2:]), *ctx.options) if ctx.needs_input_grad[0] else None
        d_dy = IrrepFprop.apply(x, grad_weight, None, False, *ctx.options) if ctx.needs_input_grad[1] else None
        return d_x, d_dy, *(None,) * 6


def irrep_dgrad(dy: Tensor, weight: Tensor, input_size: tuple[int, int], *options) -> Tensor:
    """dgrad of a lifting or group convolution, differentiable.

    The gradient to an image has no group axis for the irreps to act on, so there the dense form is as short as any.
    """
    if weight.dim() == 5:
        return IrrepDgrad.apply(dy, weight, input_size, *options)
    group, stride, padding, dilation, groups = options
    filter = expand_filter(weight, None, group, "output")
    missing = [
        n - ((m - 1) * s - 2 * p + d * (weight.shape[-1] - 1) + 1)
        for n, m, s, p, d in zip(input_size, dy.shape[-2:], stride, padding, dilation)
    ]
    return F.conv_transpose2d(dy.flatten(1, 2), filter, None, stride, padding, missing, groups, dilation)


def irrep_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, options: ConvOptions) -> Tensor:
    """The irrep algorithm's lifting or group convolution, then ReLU if asked, in one pass; differentiable to every order.
    Shapes as in functional."""
    return IrrepFprop.apply(x, weight, bias, relu, *options)
