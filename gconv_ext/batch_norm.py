"""Batch normalisation, and the ReLU behind it, where PyTorch's own is slow.

    y = (x − mean) · weight / sqrt(var + eps) + bias

over all but the fields of x [B, C, |P|, H, W].

In rows on the CPU, by kernels: in a training step PyTorch's own adds number by number in float64, which takes as long as a
convolution by the irrep algorithm.

With the planes last on a GPU, by PyTorch's kernels for the C · |P| planes, whose statistics are brought together in between, as
torch.nn.SyncBatchNorm does for those of several processes: PyTorch's own layer would copy x into rows, and leave it so to all
layers behind.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops
from .kept import differentiated, forward_mode, plain
from .memory_format import format_of, in_format

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


def has_planes_kernels(x: Tensor, *others: Tensor | None) -> bool:
    """Whether `normalise_planes` takes x, and parameters and running statistics, some of them None."""
    given = [tensor for tensor in others if tensor is not None]
    return (
        _on_gpu(x)
        and format_of(x) == "planes last"
        and all(other.device == x.device and other.shape == x.shape[1:2] for other in given)
        and x.shape[1] < x.numel() <= 2**31 * x.shape[1]  # numbers of a field are counted in 32 bits
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


def _on_gpu(x: Tensor) -> bool:
    return x.device.type == "cuda"


def normalise_planes(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """As `normalise`, of maps with their planes last."""
    y, mean, var = _PlanesBatchNorm.apply(x, weight, bias, eps)
    return F.relu(y) if relu else y, mean, var


def inference_planes(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float, relu: bool
) -> Tensor:
    """As `inference`, of maps with their planes last; differentiable."""
    of_planes = partial(_of_planes, x.shape[2])
    y = F.batch_norm(x.flatten(1, 2), of_planes(mean), of_planes(var), of_planes(weight), of_planes(bias), eps=eps)
    y = y.unflatten(1, x.shape[1:3])
    return F.relu(y) if relu else y


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
        if differentiated():
            dy = dy if activated is None else dy.masked_fill(activated <= 0, 0)
            dx, dweight, dbias = _differentiable_dgrad(dy, x, weight, ctx.eps)
        else:
            dx, dweight, dbias = ops.batch_norm_dgrad(dy, x, mean, var, weight, activated, ctx.eps, need_x)
        return dx if need_x else None, dweight if need_weight else None, dbias if need_bias else None, None, None


class _PlanesBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        planes, of_planes = x.flatten(1, 2), partial(_of_planes, x.shape[2])
        means, scales = (numbers.unflatten(0, x.shape[1:3]) for numbers in torch.batch_norm_stats(planes, eps))
        mean = means.mean(1)
        var = (scales.pow(-2) - eps + (means - mean[:, None]).square()).mean(1)  # all planes have as many numbers
        invstd = (var + eps).rsqrt()
        y = torch.batch_norm_elemt(planes, of_planes(weight), of_planes(bias), of_planes(mean), of_planes(invstd), eps)
        ctx.save_for_backward(x, weight, mean, invstd)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        return y.unflatten(1, x.shape[1:3]), mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _mean: None, _var: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return None, None, None, None
        dx: Tensor | None
        x, weight, mean, invstd = ctx.saved_tensors
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        if differentiated():
            dx, dweight, dbias = _differentiable_dgrad(dy, x, weight, ctx.eps)
        else:
            dx, dweight, dbias = _planes_dgrad(in_format(dy, "planes last"), x, weight, mean, invstd, need_x)
        dweight, dbias = (field if weight is None else field.to(weight.dtype) for field in (dweight, dbias))
        return dx if need_x else None, dweight if need_weight else None, dbias if need_bias else None, None


def _planes_dgrad(
    dy: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, invstd: Tensor, need_x: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    of_planes = partial(_of_planes, x.shape[2])
    maps_and_statistics = (dy.flatten(1, 2), x.flatten(1, 2), of_planes(mean), of_planes(invstd))
    sums = torch.batch_norm_backward_reduce(*maps_and_statistics, None, True, False, False)[:2]
    dbias, from_mean = (numbers.unflatten(0, x.shape[1:3]).sum(1) for numbers in sums)  # Σ dy, Σ dy · (x − mean)
    dweight = from_mean * invstd
    if not need_x:
        return None, dweight, dbias
    weight = weight if weight is None else weight.to(mean.dtype)
    count = torch.full((1,), x.numel() // x.shape[1], dtype=torch.int32, device=x.device)
    dx = torch.batch_norm_backward_elemt(*maps_and_statistics, of_planes(weight), of_planes(dbias), of_planes(from_mean), count)
    return dx.unflatten(1, x.shape[1:3]), dweight, dbias


def _of_planes(elements: int, field: Any) -> Any:
    """[C] -> [C · |P|], or None -> None."""
    return None if field is None else field[:, None].expand(-1, elements).flatten()


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
