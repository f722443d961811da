"""Derivatives of the compiled ops.

The expansion F = E(ψ, w) is linear in the filter bank ψ and in the relaxed weights w, so with A and B its two adjoints,

    <E(ψ, w), G> = <ψ, A(G, w)> = <w, B(G, ψ)>,

the derivatives of all three are again E, A and B.  One op computes A and B together, and derivatives of every order come
from the two functions below calling each other.
"""

from __future__ import annotations

import torch
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
