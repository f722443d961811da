"""Convolution by a filter that differs at every pixel and is never materialised: the soft translation of paper 2.

    y[b, o, i, p] = Σ_c Σ_m Σ_t k[p, i, m, t, o, c] · x[b, c, m, s·p + t]
    k[p, i, m, t, o, c] = Σ_h weight[o, c, h] · hidden[p, i, m, t, h]

with m an element of the input, i one of the output, s the stride.  The last layer of the network that renders k is
linear, so the hidden features can meet the input first:

    z[b, p, i, h, c] = Σ_m Σ_t hidden[p, i, m, t, h] · x[b, c, m, s·p + t]
    y[b, o, i, p] = Σ_h Σ_c weight[o, c, h] · z[b, p, i, h, c]

`hidden` is indexed by the output pixel p; that its features are those of the input position s·p + t, on which the
kernel k(v⁻¹u, v) depends, is for the layer to see to.

y is linear in x, hidden and weight, so that derivatives of every order are made of two ops, fprop and backward.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import algorithms, contraction_blocks, ops  # noqa: F401  (contraction_blocks defines ops)
from .autograd import Function


def windows(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """[B, C, M, H, W] -> [B, C, M, H', W', k, k], a view of the padded map."""
    return F.pad(x, (padding,) * 4).unfold(3, size, stride).unfold(4, size, stride)


def reference(x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The definition: renders the filter of every pixel, then applies it."""
    filters = torch.einsum("pqimth,och->pqimtoc", hidden, weight)
    taps = windows(x, math.isqrt(hidden.shape[4]), stride, padding).flatten(5)
    return torch.einsum("bcmpqt,pqimtoc->boipq", taps, filters)


class Contract(Function):
    """x, hidden, weight, stride, padding, family of ops -> y."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int, kernels: str) -> Tensor:
        return ops.contract_fprop(kernels, x, hidden, weight, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, hidden, weight, *ctx.options = inputs
        ctx.save_for_backward(x, hidden, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        mask = ctx.needs_input_grad[:3]
        grads = ContractBackward.apply(dy, *ctx.saved_tensors, *ctx.options, *mask)
        return *(grad if needed else None for grad, needed in zip(grads, mask)), None, None, None


class ContractBackward(Function):
    """dy, then the arguments of Contract, then which of the gradients to x, hidden and weight to compute -> these
    three."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        dy: Tensor, x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int, kernels: str, need_x: bool,
        need_hidden: bool, need_weight: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        return ops.contract_backward(
            kernels, dy, x, hidden, weight, stride, padding, [need_x, need_hidden, need_weight]
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        dy, x, hidden, weight, *ctx.options = inputs
        ctx.options, ctx.mask = ctx.options[:3], ctx.options[3:]
        ctx.save_for_backward(dy, x, hidden, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # <dy, y(x, hidden, weight)> is linear in all four: each gradient takes the place of what it is the gradient to.
        dy, *arguments = ctx.saved_tensors
        sums: list[Tensor | None] = [None] * 4

        def add(index: int, term: Tensor) -> None:
            before = sums[index]
            sums[index] = term if before is None else before + term

        for place in range(3):
            if not ctx.mask[place]:
                continue
            replaced = [*arguments[:place], grads[place], *arguments[place + 1 :]]
            if ctx.needs_input_grad[0]:
                add(0, Contract.apply(*replaced, *ctx.options))
            needed = [index != place and ctx.needs_input_grad[1 + index] for index in range(3)]
            if any(needed):
                for index, part in enumerate(ContractBackward.apply(dy, *replaced, *ctx.options, *needed)):
                    if needed[index]:
                        add(1 + index, part)
        return *sums, *(None,) * 6


def contract(
    x: Tensor, hidden: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 0, algorithm: str = "auto"
) -> Tensor:
    """The equations above, differentiable to every order.

    Args:
        x: [B, C, M, H, W].
        hidden: [H', W', I, M, k·k, D].
        weight: [O, C, D].
        stride, padding: of rows and columns alike; beyond the map x is 0.
        algorithm: "reference" renders all filters, [H', W', I, M, k·k, O, C].  "contract" goes through the output
            pixels in blocks: compiled on the CPU, where it renders the filters of a block if the batch is so large
            that this takes fewer multiplications, by PyTorch on other devices.  "triton_contract" is one kernel for
            each pass, on a GPU.  "auto" is "contract".

    Returns:
        [B, O, I, H', W'].

    Raises:
        ValueError: unknown algorithm, or one that does not support the device or dtype.
        RuntimeError: Triton is missing.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, hidden, weight = x.to(dtype), hidden.to(dtype), weight.to(dtype)
    kernels = algorithms.contraction_kernels(algorithm, weight)
    if not kernels:
        return reference(x, hidden, weight, stride, padding)
    return Contract.apply(x, hidden, weight, stride, padding, kernels)
