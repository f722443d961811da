"""Batch normalisation, and the ReLU behind it, by kernels for the CPU.

    y = (x − mean) · weight / sqrt(var + eps) + bias

over all but the fields of x [B, C, |P|, H, W].  In a training step PyTorch's own adds number by number in float64, which
takes as long as a convolution by the irrep algorithm.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import ops
from .kept import forward_mode, plain

_ALL_BUT_FIELDS = (0, 2, 3, 4)


def has_kernels(x: Tensor, *others: Tensor | None) -> bool:
    """Whether `normalise` takes x, and parameters and running statistics, some of them None."""
    given = [tensor for tensor in others if tensor is not None]
    return (
        ops.is_compiled("batch_norm_fprop", x.device)
        and x.dtype in (torch.float32, torch.float64)
        and all(other.dtype == x.dtype and other.device == x.device and other.shape == x.shape[1:2] for other in given)
        and x.numel() > x.shape[1]
        and plain(x, *given)
        and not forward_mode()
    )


def normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The equation above, or max(y, 0) of it, differentiable to every order.

    Returns:
        (y, mean, var): the last two [C], without derivatives; var over all numbers of a field, not over one less.
    """
    return _BatchNorm.apply(x, weight, bias, eps, relu)


def inference(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float, relu: bool
) -> Tensor:
    """The equation above, or max(y, 0) of it, with a given mean and variance [C].  No derivative."""
    return ops.batch_norm_inference(x, weight, bias, mean, var, eps, relu)


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, var = ops.batch_norm_fprop(x, weight, bias, eps, relu)
        ctx.save_for_backward(x, weight, mean, var, y if relu else None)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _mean: None, _var: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return None, None, None, None, None
        x, weight, mean, var, activated = ctx.saved_tensors
        need_x, need_weight, need_bias, _, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            dy = dy if activated is None else dy.masked_fill(activated <= 0, 0)
            dx, dweight, dbias = _differentiable_dgrad(dy, x, weight, ctx.eps)
        else:
            dx, dweight, dbias = ops.batch_norm_dgrad(dy, x, mean, var, weight, activated, ctx.eps, need_x)
        return dx if need_x else None, dweight if need_weight else None, dbias if need_bias else None, None, None


def _differentiable_dgrad(dy: Tensor, x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The three gradients by PyTorch's functions, as functions of dy, x and weight: for derivatives of higher order."""
    centred = x - x.mean(_ALL_BUT_FIELDS, keepdim=True)
    invstd = (centred.square().mean(_ALL_BUT_FIELDS, keepdim=True) + eps).rsqrt()
    normalised = centred * invstd
    product = dy * normalised
    dx = (dy - dy.mean(_ALL_BUT_FIELDS, keepdim=True) - normalised * product.mean(_ALL_BUT_FIELDS, keepdim=True)) * invstd
    if weight is not None:
        dx = dx * weight[:, None, None, None]
    return dx, product.sum(_ALL_BUT_FIELDS), dy.sum(_ALL_BUT_FIELDS)
