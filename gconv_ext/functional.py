"""Group convolutions as functions.

| tensor          | lifting                   | group convolution                |
|-----------------|---------------------------|----------------------------------|
| x               | [B, C_in, H, W]           | [B, C_in, |P|, H, W]             |
| weight          | [C_out, C_in, k, k]       | [C_out, C_in, |P|, k, k]         |
| weight, relaxed | [L, C_out, C_in, k, k]    | [L, C_out, C_in, |P|, k, k]      |
| relaxed_weight  | [L, |P|]                  | [L, |P|]                         |
| bias            | [C_out]                   | [C_out]                          |
| result          | [B, C_out, |P|, H', W']   | [B, C_out, |P|, H', W']          |

Channels count fields: a field holds one number for each of the |P| elements of the group.  With `groups` above 1,
C_in in `weight` is that of one group, as in torch.nn.functional.conv2d.

Every function raises, before anything runs, a ValueError (shape, device, order of the group, stride, unknown name) or a
TypeError (dtype, kind of argument) that names the argument, what came and what was expected, and a RuntimeError where an
algorithm was asked for by name whose back end is missing.

`algorithm` is one of

* "reference": plain PyTorch, any device and dtype, the definition;
* "dense": the filter expanded in one pass, then PyTorch's convolution; CPU and GPU; float64, float32, bfloat16, float16;
* "irrep": 6/16 of dense's multiplications for C4 and 12/64 for D4, and exact equivariance: conv(g·x) and g·conv(x) are the
  same bits; CPU in the same four dtypes; on a GPU in float32, bfloat16 and float16 (transforms are rounded in the 16-bit types);
* "fused": rotation, relaxed sum and correlation in one kernel; GPU, the same three dtypes, and float64 where the CUDA
  kernels were built;
* "triton_irrep", "triton_fused": the last two by the Triton kernels;
* "auto": the fastest that supports the call; see gconv_ext.explain.

Float32 products on a GPU are exact, unless torch.backends.cuda.matmul.allow_tf32 is set.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from . import algorithms, checks, ops
from .groups import PointGroup, as_group
from .plan_cache import PlanCache

__all__ = [
    "lifting_conv2d", "group_conv2d", "group_conv_transpose2d", "relaxed_lifting_conv2d", "relaxed_group_conv2d",
    "expand_filter",
]  # fmt: skip


class _Options(NamedTuple):
    """Of a call, as they are given."""

    lifting: bool
    relaxed: bool
    group: PointGroup | str
    relax_on: str
    stride: int | tuple[int, int]
    padding: int | tuple[int, int]
    dilation: int | tuple[int, int]
    groups: int
    activation: str | None
    algorithm: str


def _checked_call(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, given: _Options
) -> algorithms.Convolution:
    lifting, relax_on, groups, activation = given.lifting, given.relax_on, given.groups, given.activation
    group = as_group(given.group)
    checks.check_relax_on(relax_on, lifting)
    checks.check_activation(activation)
    algorithms.check_algorithm(given.algorithm)
    stride = checks.as_pair("stride", given.stride, 1, group)
    padding = checks.as_pair("padding", given.padding, 0, group)
    dilation = checks.as_pair("dilation", given.dilation, 1, group)
    checks.check_positive("groups", groups)
    checks.check_filter_bank(weight, relaxed_weight, group, lifting, given.relaxed)
    checks.check_convolution(x, weight, bias, group, lifting, stride, padding, dilation, groups)
    return algorithms.Convolution(
        x, weight, relaxed_weight, bias, group, relax_on, stride, padding, dilation, groups, activation
    )


_plans = PlanCache()


def _convolve(x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, *given: Any) -> Tensor:
    # Between convolutions Python's code leaves the processor's caches, and checks took as long as a small convolution.
    signature = ops.signature(x, weight, relaxed_weight, bias, given)
    plan = _plans.get(signature)
    if plan is None:
        options = _Options(*given)
        plan = algorithms.plan(_checked_call(x, weight, relaxed_weight, bias, options), options.algorithm)
        _plans.add(signature, plan)
    return algorithms.compute(plan, x, weight, relaxed_weight, bias)


def lifting_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, group: PointGroup | str,
    stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1,
    groups: int = 1, algorithm: str = "auto", activation: str | None = None,
) -> Tensor:  # fmt: skip
    """Lifts an image to a feature map on the group (Cohen & Welling 2016, Eq. 10):

        y[o, u, p] = bias[o] + Σ_c Σ_t weight[o, c, u⁻¹t] · x[c, p + t]

    Args:
        x: [B, C_in, H, W].
        weight: [C_out, C_in / groups, k, k].
        bias: [C_out] or None; one number a field, shared over the group.
        group: a PointGroup or its name.
        stride, padding, dilation: an int, or (rows, columns), which must agree where the group has quarter turns; in
            pixels.
        groups: blocks of fields that are convolved apart.
        algorithm: see the module.
        activation: None, or "relu" for max(y, 0), in the same pass where the algorithm can.

    Returns:
        [B, C_out, |P|, H', W'].

    Raises:
        ValueError, TypeError, RuntimeError: see the module.
    """
    return _convolve(
        x, weight, None, bias, True, False, group, "output", stride, padding, dilation, groups, activation, algorithm
    )


def group_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, group: PointGroup | str,
    stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1,
    groups: int = 1, algorithm: str = "auto", activation: str | None = None,
) -> Tensor:  # fmt: skip
    """Group convolution (Cohen & Welling 2016, Eq. 11):

        y[o, u, p] = bias[o] + Σ_c Σ_v Σ_t weight[o, c, u⁻¹v, u⁻¹t] · x[c, v, p + t]

    Args:
        x: [B, C_in, |P|, H, W].
        weight: [C_out, C_in / groups, |P|, k, k]; the third axis is the relative element w = u⁻¹v.
        bias: [C_out] or None.
        group, stride, padding, dilation, groups, algorithm, activation: as for lifting_conv2d.

    Returns:
        [B, C_out, |P|, H', W'].

    Raises:
        ValueError, TypeError, RuntimeError: see the module.
    """
    return _convolve(
        x, weight, None, bias, False, False, group, "output", stride, padding, dilation, groups, activation, algorithm
    )


def group_conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, group: PointGroup | str,
    stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0, output_padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1, groups: int = 1, algorithm: str = "auto",
) -> Tensor:  # fmt: skip
    """Transposed group convolution, the adjoint of group_conv2d with the same weight: with T the transposed one,
    <group_conv2d(y, weight), x> = <y, T(x, weight)> for every y, so

        y[c, v, q] = bias[c] + Σ_o Σ_u Σ_{p, t: p·stride + t = q} weight[o, c, u⁻¹v, u⁻¹t] · x[o, u, p]

    It is equivariant for maps of every size where output_padding is 0.

    Args:
        x: [B, C_in, |P|, H, W].
        weight: [C_in, C_out / groups, |P|, k, k], the fields of x first, as in torch.nn.functional.conv_transpose2d.
        bias: [C_out] or None; one number a field, shared over the group.
        group, stride, padding, dilation, groups: as for group_conv2d, of the convolution whose adjoint this is.
        output_padding: rows and columns more at one end, less than the stride; they make any size reachable and break
            the equivariance.
        algorithm: see the module; "auto" takes what it would take for the convolution whose adjoint this is, but dense
            for strided ones with even k.

    Returns:
        [B, C_out, |P|, H', W'], H' = (H − 1) · stride − 2 · padding + dilation · (k − 1) + 1 + output_padding.

    Raises:
        ValueError, TypeError, RuntimeError: see the module.
    """
    group = as_group(group)
    stride = checks.as_pair("stride", stride, 1, group)
    padding = checks.as_pair("padding", padding, 0, group)
    dilation = checks.as_pair("dilation", dilation, 1, group)
    output_padding = checks.as_pair("output_padding", output_padding, 0, group)
    checks.check_filter_bank(weight, None, group, False, False, "[C_in, C_out, |P|, k, k]")
    size = checks.check_transposed_convolution(
        x, weight, bias, group, stride, padding, output_padding, dilation, groups
    )
    like = x.new_empty(()).expand(x.shape[0], weight.shape[1] * groups, group.order, *size)
    call = algorithms.Convolution(like, weight, None, bias, group, "output", stride, padding, dilation, groups, None)
    return algorithms.run_adjoint(call, x, algorithm)


def relaxed_lifting_conv2d(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor, bias: Tensor | None = None, *, group: PointGroup | str,
    relax_on: str = "output", stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1, groups: int = 1, algorithm: str = "auto", activation: str | None = None,
) -> Tensor:  # fmt: skip
    """Relaxed lifting convolution (Wang, Walters & Yu 2022): L filter banks, weighted for each output element,

        y[o, u, p] = bias[o] + Σ_c Σ_t Σ_l relaxed_weight[l, u] · weight[l, o, c, u⁻¹t] · x[c, p + t]

    Equivariant exactly when relaxed_weight[l, ·] is constant for every l.

    Args:
        x: [B, C_in, H, W].
        weight: [L, C_out, C_in / groups, k, k].
        relaxed_weight: [L, |P|].
        bias: [C_out] or None.
        relax_on: "output"; an image has no group axis, so "input" is an error.
        group, stride, padding, dilation, groups, algorithm, activation: as for lifting_conv2d.

    Returns:
        [B, C_out, |P|, H', W'].

    Raises:
        ValueError, TypeError, RuntimeError: see the module.
    """
    return _convolve(
        x, weight, relaxed_weight, bias, True, True, group, relax_on, stride, padding, dilation, groups, activation, algorithm
    )


def relaxed_group_conv2d(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor, bias: Tensor | None = None, *, group: PointGroup | str,
    relax_on: str = "output", stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1, groups: int = 1, algorithm: str = "auto", activation: str | None = None,
) -> Tensor:  # fmt: skip
    """Relaxed group convolution (Wang, Walters & Yu 2022; paper 1, Eqs. 5 and 6):

        y[o, u, p] = bias[o] + Σ_c Σ_v Σ_t Σ_l w_l · weight[l, o, c, u⁻¹v, u⁻¹t] · x[c, v, p + t]

    with w_l = relaxed_weight[l, v] for relax_on="input" (as the papers write it, w_l(h)) and
    w_l = relaxed_weight[l, u] for relax_on="output" (as the published code computes it).
    Equivariant exactly when relaxed_weight[l, ·] is constant for every l.

    Args:
        x: [B, C_in, |P|, H, W].
        weight: [L, C_out, C_in / groups, |P|, k, k].
        relaxed_weight: [L, |P|].
        bias: [C_out] or None.
        relax_on: "input" or "output".
        group, stride, padding, dilation, groups, algorithm, activation: as for lifting_conv2d.

    Returns:
        [B, C_out, |P|, H', W'].

    Raises:
        ValueError, TypeError, RuntimeError: see the module.
    """
    return _convolve(
        x, weight, relaxed_weight, bias, False, True, group, relax_on, stride, padding, dilation, groups, activation, algorithm
    )


def expand_filter(
    weight: Tensor, relaxed_weight: Tensor | None = None, *, group: PointGroup | str, relax_on: str = "output"
) -> Tensor:
    """The dense filter with which torch.nn.functional.conv2d computes the group convolution:

        filter[o·|P| + u, c·|P| + v, t] = Σ_l w_l · weight[l, o, c, u⁻¹v, u⁻¹t]

    Use it on x.flatten(1, 2), and unflatten the result's channels to [C_out, |P|].  Strict or relaxed, lifting or group
    convolution is told by the number of dimensions of `weight`.

    Args:
        weight: any of the module's four kinds.
        relaxed_weight: [L, |P|] or None.
        group: a PointGroup or its name.
        relax_on: "input" or "output"; see relaxed_group_conv2d.

    Returns:
        [|P|·C_out, C_in, k, k] (lifting) or [|P|·C_out, |P|·C_in, k, k], differentiable to every order.

    Raises:
        ValueError, TypeError: see the module.
    """
    group = as_group(group)
    relaxed = relaxed_weight is not None
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight must be a tensor, got {type(weight).__name__}")
    lifting = weight.dim() <= 4 + relaxed
    checks.check_relax_on(relax_on, lifting and relaxed)
    checks.check_filter_bank(weight, relaxed_weight, group, lifting, relaxed)
    return algorithms.expand_filter(weight, relaxed_weight, group, relax_on, lifting)


def explain(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor | None = None, bias: Tensor | None = None, *,
    group: PointGroup | str, relax_on: str = "output", stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1, groups: int = 1, algorithm: str = "auto",
    activation: str | None = None,
) -> algorithms.Explanation:  # fmt: skip
    """What algorithm="auto" would take for a call, and why; nothing is computed.

    Takes the arguments of any of the four convolutions: a third tensor with one dimension is the bias of a strict one,
    with two the relaxed weights.  `algorithm` is checked and otherwise ignored.

    Returns:
        Explanation(algorithm, reason, rejected); print it for a reader.

    Raises:
        ValueError, TypeError: as the convolution itself.
    """
    if bias is None and isinstance(relaxed_weight, Tensor) and relaxed_weight.dim() == 1:
        relaxed_weight, bias = None, relaxed_weight
    lifting, relaxed = isinstance(x, Tensor) and x.dim() == 4, relaxed_weight is not None
    given = _Options(lifting, relaxed, group, relax_on, stride, padding, dilation, groups, activation, algorithm)
    return algorithms.choose(_checked_call(x, weight, relaxed_weight, bias, given))
