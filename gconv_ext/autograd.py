"""Derivatives of the compiled ops.

Every op here is linear in each of its tensors, and the derivatives of such a family are the family again: derivatives of
every order come from the functions below calling each other.

The expansion F = E(ψ, w) is linear in the filter bank ψ and in the relaxed weights w, so with A and B its two adjoints,

    <E(ψ, w), G> = <ψ, A(G, w)> = <w, B(G, ψ)>,

the derivatives of all three are again E, A and B.  One op computes A and B together.

A convolution y = fprop(x, ψ, w), by the kernels of any family of ops.py, likewise:

    <fprop(x, ψ, w), dy> = <x, dgrad(dy, ψ, w)> = <ψ, wgrad(x, dy, w)> = <w, rgrad(x, ψ, dy)>.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops
from .kept import differentiated
from .memory_format import in_format, planes_of, result_format


class _AsGiven(inspect.BoundArguments):
    def apply_defaults(self) -> None:
        pass

    @property
    def args(self) -> tuple[Any, ...]:
        return self.arguments  # type: ignore[return-value]

    @property
    def kwargs(self) -> dict[str, Any]:
        return {}


class _Positional(inspect.Signature):
    """Of a forward whose arguments are all given, by position."""

    def bind(self, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        if kwargs:
            raise TypeError(f"arguments are given by position, got {', '.join(kwargs)} by name")
        return _AsGiven(self, args)  # type: ignore[arg-type]


class Function(torch.autograd.Function):
    """PyTorch's, which reads forward's signature and binds the arguments to it in every call; for more than ten arguments
    that took longer than a small convolution."""

    def __init_subclass__(cls) -> None:
        read = inspect.signature(cls.forward)
        cls.forward.__signature__ = _Positional([*read.parameters.values()])  # type: ignore[attr-defined]


class ExpandFilter(Function):
    """E(ψ, w): weight, relaxed_weight or None, group name, relax_on -> filter."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str) -> Tensor:
        return ops.expand_filter(weight, relaxed_weight, group, relax_on)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight, relaxed_weight, ctx.group, ctx.relax_on = inputs
        ctx.save_for_backward(weight, relaxed_weight)

    @staticmethod
    def backward(ctx: Any, grad_filter: Tensor) -> tuple[Tensor | None, ...]:
        weight, relaxed_weight = ctx.saved_tensors
        mask = ctx.needs_input_grad[:2]
        grads = ExpandFilterBackward.apply(grad_filter, weight, relaxed_weight, ctx.group, ctx.relax_on, *mask)
        return *(grad if needed else None for grad, needed in zip(grads, mask)), None, None


class ExpandFilterBackward(Function):
    """(A(G, w), B(G, ψ)): grad_filter G, then the arguments of ExpandFilter, then which of the two to compute."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad_filter: Tensor, weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str,
        need_weight: bool, need_relaxed_weight: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        return ops.expand_filter_backward(
            grad_filter, weight, relaxed_weight, group, relax_on, [need_weight, need_relaxed_weight]
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        grad_filter, weight, relaxed_weight, ctx.group, ctx.relax_on, *ctx.mask = inputs
        ctx.save_for_backward(grad_filter, weight, relaxed_weight)

    @staticmethod
    def backward(ctx: Any, grad_a: Tensor, grad_b: Tensor) -> tuple[Tensor | None, ...]:
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
    """What the passes of a convolution share besides their tensors; `kernels` names a family of ops.py."""

    kernels: str
    group: str
    relax_on: str
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


# The forwards below name each option, since torch.compile misreads a forward with *options as one that takes ctx.


class Fprop(Function):
    """fprop(x, ψ, w) + bias, and ReLU of that when asked: x, weight, relaxed_weight or None, bias or None,
    relu, then ConvOptions -> y."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, relu: bool, kernels: str, group: str,
        relax_on: str, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int,
    ) -> Tensor:  # fmt: skip
        options = (group, relax_on, stride, padding, dilation, groups, relu)
        return ops.fprop(kernels, x, weight, relaxed_weight, bias, None, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, relaxed_weight, _, ctx.relu, *ctx.options = inputs
        ctx.save_for_backward(x, weight, relaxed_weight, output if ctx.relu else None)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, relaxed_weight, y = ctx.saved_tensors
        need_x, need_weight, need_relaxed_weight, need_bias = ctx.needs_input_grad[:4]
        dy = in_format(dy, result_format(x))  # else dx, and so the gradients of all layers before, would have another format than their maps
        if need_bias:  # else the passes mask dy while they read it
            dy, y = _masked(dy, y), None
        dx = dgrad(dy, weight, relaxed_weight, y, tuple(x.shape[-2:]), *ctx.options) if need_x else None
        dweight = drelaxed_weight = None
        if need_relaxed_weight and (elementwise := _elementwise_kernels(ctx.options[0], x.device)):
            gradients = element_wgrad(x, dy, y, weight.shape[-1], elementwise, *ctx.options[1:])
            drelaxed_weight = _of_weights(weight, gradients)
            if need_weight:
                dweight = (relaxed_weight.to(gradients.dtype) @ gradients.flatten(1)).view(weight.shape).to(weight.dtype)
        else:
            dweight = _of(Wgrad)(x, dy, relaxed_weight, y, weight.shape[-1], *ctx.options) if need_weight else None
            drelaxed_weight = rgrad(x, weight, dy, y, *ctx.options) if need_relaxed_weight else None
        return dx, dweight, drelaxed_weight, dy.sum((0, 2, 3, 4)) if need_bias else None, *(None,) * 8


class Dgrad(Function):
    """dgrad(dy, ψ, w) of a group convolution: dy, weight, relaxed_weight or None, the convolution's result after ReLU or
    None, (height, width) of the input, then ConvOptions -> dx."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        dy: Tensor, weight: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None,
        input_size: tuple[int, int], kernels: str, group: str, relax_on: str, stride: tuple[int, int],
        padding: tuple[int, int], dilation: tuple[int, int], groups: int,
    ) -> Tensor:  # fmt: skip
        options = (group, relax_on, input_size, stride, padding, dilation, groups)
        return ops.dgrad(kernels, dy, weight, relaxed_weight, activated, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        dy, weight, relaxed_weight, activated, _, *ctx.options = inputs
        ctx.save_for_backward(dy, weight, relaxed_weight, activated)

    @staticmethod
    def backward(ctx: Any, grad_dx: Tensor) -> tuple[Tensor | None, ...]:
        dy, weight, relaxed_weight, activated = ctx.saved_tensors
        need_dy, need_weight, need_relaxed_weight = ctx.needs_input_grad[:3]
        d_dy = d_weight = d_relaxed_weight = None
        grad_dx = in_format(grad_dx, result_format(dy))
        if need_dy:
            d_dy = _masked(Fprop.apply(grad_dx, weight, relaxed_weight, None, False, *ctx.options), activated)
        if need_weight:
            d_weight = Wgrad.apply(grad_dx, dy, relaxed_weight, activated, weight.shape[-1], *ctx.options)
        if need_relaxed_weight:
            d_relaxed_weight = rgrad(grad_dx, weight, dy, activated, *ctx.options)
        return d_dy, d_weight, d_relaxed_weight, *(None,) * 9


class Wgrad(Function):
    """wgrad(x, dy, w): x, dy, relaxed_weight or None, the convolution's result after ReLU or None, kernel size, then
    ConvOptions -> gradient of the weight."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, dy: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, kernel_size: int, kernels: str,
        group: str, relax_on: str, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int],
        groups: int,
    ) -> Tensor:  # fmt: skip
        options = (group, relax_on, kernel_size, stride, padding, dilation, groups)
        return ops.wgrad(kernels, x, dy, relaxed_weight, activated, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, dy, relaxed_weight, activated, _, *ctx.options = inputs
        ctx.save_for_backward(x, dy, relaxed_weight, activated)

    @staticmethod
    def backward(ctx: Any, grad_weight: Tensor) -> tuple[Tensor | None, ...]:
        x, dy, relaxed_weight, activated = ctx.saved_tensors
        need_x, need_dy, need_relaxed_weight = ctx.needs_input_grad[:3]
        d_x = d_dy = d_relaxed_weight = None
        if need_x:
            d_x = dgrad(dy, grad_weight, relaxed_weight, activated, tuple(x.shape[-2:]), *ctx.options)
        if need_dy:
            d_dy = _masked(Fprop.apply(x, grad_weight, relaxed_weight, None, False, *ctx.options), activated)
        if need_relaxed_weight:
            d_relaxed_weight = rgrad(x, grad_weight, dy, activated, *ctx.options)
        return d_x, d_dy, d_relaxed_weight, *(None,) * 9


def _of(function: type[Function]) -> Callable[..., Tensor]:
    """Its apply, or, as in most backward passes, no graph is built, its forward, which takes a quarter of the time."""
    return function.apply if differentiated() else function.forward


def _masked(dy: Tensor, activated: Tensor | None) -> Tensor:
    """The backward pass of ReLU; dy itself where there was none."""
    return dy if activated is None else torch.ops.aten.threshold_backward(dy, activated, 0)


def dgrad(
    dy: Tensor, weight: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, input_size: tuple[int, int],
    *options: Any,
) -> Tensor:  # fmt: skip
    """dgrad of a lifting or group convolution, differentiable; `activated` as in Dgrad.

    The gradient to an image has no group axis for the irreps to act on, so there the dense form is as short as any.
    """
    kernels, group, relax_on, stride, padding, dilation, groups = options
    if weight.dim() == 5 + (relaxed_weight is not None) or kernels.endswith("fused"):
        return _of(Dgrad)(dy, weight, relaxed_weight, activated, input_size, *options)
    filter = expand_filter(weight, relaxed_weight, group, relax_on)
    missing = [
        n - ((m - 1) * s - 2 * p + d * (weight.shape[-1] - 1) + 1)
        for n, m, s, p, d in zip(input_size, dy.shape[-2:], stride, padding, dilation)
    ]
    dy = _masked(dy, activated)
    return F.conv_transpose2d(planes_of(dy), filter, None, stride, padding, missing, groups, dilation)


def _elementwise_kernels(kernels: str, device: torch.device) -> str | None:
    """The family for element_wgrad: one that forms the products of all elements anyway, or None where there is none."""
    if kernels.startswith("triton"):
        return "triton_fused"
    return "fused" if ops.is_compiled("fused_wgrad", device) else None


def element_wgrad(x: Tensor, dy: Tensor, activated: Tensor | None, kernel_size: int, *options: Any) -> Tensor:
    """The gradients G_h of a relaxed convolution's filters for each element h, carried back to ψ's: [|P|, *one bank], in
    float32 at least, differentiable; `activated` as in Wgrad.

        <fprop(x, ψ, w), dy> = Σ_l Σ_h w[l, h] · <ψ_l, G_h>

    so that they hold the gradients to all ψ_l and to w.  wgrad is linear in w: G is that of the identity.  Not in 16 bits, for
    a gradient to w is a sum over all numbers of G, which their rounding would reach.
    """
    if dy.dtype in (torch.bfloat16, torch.float16):
        x, dy, activated = x.float(), _masked(dy, activated).float(), None
    identity = torch.eye(dy.shape[2], dtype=dy.dtype, device=dy.device)
    return _of(Wgrad)(x, dy, identity, activated, kernel_size, *options)


def _of_weights(weight: Tensor, gradients: Tensor) -> Tensor:
    """The gradient to w, of what element_wgrad returns: <ψ_l, G_h>."""
    return (weight.flatten(1).to(gradients.dtype) @ gradients.flatten(1).mT).to(weight.dtype)


def rgrad(x: Tensor, weight: Tensor, dy: Tensor, activated: Tensor | None, *options: Any) -> Tensor:
    """Gradient of <fprop(x, ψ, w), dy> to the relaxed weights w [L, |P|], differentiable; `activated` as in Wgrad.

    By element_wgrad; or on the output Σ dy · fprop(x, ψ_l), on the input Σ x · dgrad(dy, ψ_l): a strict convolution in which
    the L banks lie side by side in the fields.
    """
    if elementwise := _elementwise_kernels(options[0], x.device):
        gradients = element_wgrad(x, dy, activated, weight.shape[-1], elementwise, *options[1:])
        return _of_weights(weight, gradients)
    dy = _masked(dy, activated)
    relax_on, groups, banks = options[2], options[-1], weight.shape[0]
    dtype = x.dtype
    if dtype in (torch.bfloat16, torch.float16):  # sums are formed in float32
        x, weight, dy = x.float(), weight.float(), dy.float()
    if relax_on == "input":
        weight = weight.movedim(0, 1).flatten(1, 2)
        by_bank = dgrad(dy, weight, None, None, (x.shape[-2], x.shape[-1]), *options).unflatten(1, (groups, banks, -1))
        product = by_bank * x.unflatten(1, (groups, 1, -1))
    else:
        # [L, groups · O', …] -> [groups · L · O', …]: the banks of a block of fields stay in their block.
        weight = weight.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 2)
        by_bank = Fprop.apply(x, weight, None, None, False, *options).unflatten(1, (groups, banks, -1))
        product = by_bank * dy.unflatten(1, (groups, 1, -1))
    return product.sum((0, 1, 3, 5, 6)).to(dtype)


def conv2d(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, relu: bool, options: ConvOptions
) -> Tensor:
    """A lifting or group convolution, strict or relaxed, then ReLU if asked, in one pass; differentiable to every order.
    Shapes as in functional."""
    return Fprop.apply(x, weight, relaxed_weight, bias, relu, *options)
