"""Loads the compiled ops and declares their fakes.  Importing this module never fails: where the ops are missing,
`missing_reason()` says why."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .groups import PointGroup, as_group
from .memory_format import empty_map_like

if TYPE_CHECKING:
    from torch._functorch.autograd_function import VmapInfo

_COMPILED_OPS = (
    "expand_filter", "expand_filter_backward",
    "irrep_fprop", "irrep_transform_weight", "irrep_dgrad", "irrep_wgrad",
    "fused_fprop", "fused_dgrad", "fused_wgrad",
    "contract_fprop", "contract_backward",
    "batch_norm_inference", "batch_norm_fprop", "batch_norm_dgrad",
    "window_sum_fprop", "window_sum_dgrad",
)  # fmt: skip


_C: Any = None  # csrc/python.cpp, where it could be loaded


def _load() -> str | None:
    """Loads the library of ops; None, or why it could not be loaded."""
    libraries = sorted(Path(__file__).parent.glob("_C*.so"))
    if not libraries:
        return (
            "the compiled ops were not built, because no C++ compiler was found when gconv_ext was installed; "
            "install g++, then run `pip install --no-build-isolation --force-reinstall --no-deps .` in the source tree"
        )
    try:
        global _C
        _C = importlib.import_module("._C", __package__)
        _C.set_point_group(PointGroup)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        built_with = build_info().get("torch", "an unknown torch")
        return (
            f"the compiled ops could not be loaded (built with torch {built_with}, running torch {torch.__version__}): "
            f"{error}; reinstall gconv_ext to build it against this torch"
        )
    if absent := [name for name in _COMPILED_OPS if not hasattr(torch.ops.gconv_ext, name)]:
        return f"the compiled ops are of other sources than this Python code: they lack {', '.join(absent)}; reinstall gconv_ext"
    return None


def build_info() -> dict[str, str | int]:
    """What the compiled modules were built with; empty where they were not built."""
    try:
        from . import _build_info
    except ImportError:
        return {}
    return _build_info.build_info()


_missing_reason = _load()
_compiled = {
    (name, device)
    for name in _COMPILED_OPS
    for device in ("cpu", "cuda")
    if _missing_reason is None and torch._C._dispatch_has_kernel_for_dispatch_key(f"gconv_ext::{name}", device.upper())
}


def missing_reason() -> str | None:
    """Why the compiled ops are missing, or None when they are there."""
    return _missing_reason


def is_compiled(name: str, device: torch.device) -> bool:
    """Whether the compiled library has the op of that name for the device."""
    return (name, device.type) in _compiled


@contextlib.contextmanager
def without_wgmma() -> Iterator[None]:
    """Inside, "irrep" in bfloat16 and float16 multiplies with mma.sync on Hopper GPUs as on all others, in every thread: to
    compare it with wgmma (csrc/cuda/wgmma_choice.h).

    Raises:
        RuntimeError: the CUDA kernels were not built.
    """
    if not is_compiled("irrep_fprop", torch.device("cuda")):
        raise RuntimeError(f"wgmma belongs to the CUDA kernels, which are missing: {build_info().get('cuda', missing_reason())}")
    before = torch.ops.gconv_ext.allow_wgmma(False)
    try:
        yield
    finally:
        torch.ops.gconv_ext.allow_wgmma(before)


def expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str) -> Tensor:
    """The op gconv_ext::expand_filter: shapes as in functional.expand_filter.  No derivative; see autograd.py."""
    return torch.ops.gconv_ext.expand_filter(weight, relaxed_weight, group, relax_on)


def expand_filter_backward(
    grad_filter: Tensor, weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str, output_mask: list[bool]
) -> tuple[Tensor, Tensor]:
    """The op gconv_ext::expand_filter_backward: (grad_weight, grad_relaxed_weight), each of shape [0] where
    `output_mask` does not ask for it."""
    return torch.ops.gconv_ext.expand_filter_backward(grad_filter, weight, relaxed_weight, group, relax_on, output_mask)


# The passes of a convolution come in families, one for each algorithm and kind of kernel, named by `kernels`:
#
#   irrep           compiled                              fused           compiled
#   triton_irrep    Triton (triton_kernels/)              triton_fused    Triton


def fprop(
    kernels: str, x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None,
    transformed_weight: Tensor | None, group: str, relax_on: str, stride: tuple[int, int], padding: tuple[int, int],
    dilation: tuple[int, int], groups: int, relu: bool,
) -> Tensor:  # fmt: skip
    """The op gconv_ext::{kernels}_fprop: lifting (x [B, C, H, W]) or group convolution, shapes as in functional.
    `transformed_weight` is None or what transform_weight of the same kernels made of the same weight."""
    options = (group, relax_on, stride, padding, dilation, groups, relu)
    return getattr(torch.ops.gconv_ext, f"{kernels}_fprop")(x, weight, relaxed_weight, bias, transformed_weight, *options)


def irrep_fprop_of_plain(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, transformed_weight: Tensor, group: str,
    relax_on: str, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int, relu: bool,
) -> Tensor:  # fmt: skip
    """fprop("irrep", …) of plain tensors on the CPU, where nothing is traced or transformed, without PyTorch's search for the
    right overload of an op."""
    return _C.irrep_fprop(
        x, weight, relaxed_weight, bias, transformed_weight, group, relax_on, stride, padding, dilation, groups, relu
    )


def transform_weight(
    kernels: str, weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str, groups: int
) -> Tensor:
    """The op gconv_ext::{kernels}_transform_weight of the irrep families: [numbers], in an order of the kernels' own.  No
    derivative."""
    return getattr(torch.ops.gconv_ext, f"{kernels}_transform_weight")(weight, relaxed_weight, group, relax_on, groups)


def dgrad(
    kernels: str, dy: Tensor, weight: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, group: str,
    relax_on: str, input_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
    dilation: tuple[int, int], groups: int,
) -> Tensor:  # fmt: skip
    """The op gconv_ext::{kernels}_dgrad: the gradient to the input of a group convolution (of a lifting one too in the fused
    families).  With `activated`, the result of the convolution after ReLU, dy counts where that is above 0."""
    options = (group, relax_on, input_size, stride, padding, dilation, groups)
    return getattr(torch.ops.gconv_ext, f"{kernels}_dgrad")(dy, weight, relaxed_weight, activated, *options)


def wgrad(
    kernels: str, x: Tensor, dy: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, group: str, relax_on: str,
    kernel_size: int, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int,
) -> Tensor:  # fmt: skip
    """The op gconv_ext::{kernels}_wgrad: the gradient to the weight of a lifting or group convolution; `activated` as in
    dgrad."""
    options = (group, relax_on, kernel_size, stride, padding, dilation, groups)
    return getattr(torch.ops.gconv_ext, f"{kernels}_wgrad")(x, dy, relaxed_weight, activated, *options)


# The contraction of contraction.py has two families: contract, compiled or in PyTorch (contraction_blocks.py), and
# triton_contract.


def contract_fprop(kernels: str, x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The op gconv_ext::{kernels}_fprop: shapes as in contraction.contract."""
    return getattr(torch.ops.gconv_ext, f"{kernels}_fprop")(x, hidden, weight, stride, padding)


def contract_backward(
    kernels: str, dy: Tensor, x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int, output_mask: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The op gconv_ext::{kernels}_backward: the gradients to x, hidden and weight, each of shape [0] where `output_mask` does
    not ask for it."""
    return getattr(torch.ops.gconv_ext, f"{kernels}_backward")(dy, x, hidden, weight, stride, padding, output_mask)


def batch_norm_inference(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float, relu: bool
) -> Tensor:
    """The op gconv_ext::batch_norm_inference: y, shapes as in batch_norm.py.  No derivative."""
    return torch.ops.gconv_ext.batch_norm_inference(x, weight, bias, mean, var, eps, relu)


def batch_norm_fprop(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The op gconv_ext::batch_norm_fprop: (y, mean, var), shapes as in batch_norm.py.  No derivative."""
    return torch.ops.gconv_ext.batch_norm_fprop(x, weight, bias, eps, relu)


def batch_norm_dgrad(
    dy: Tensor, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, activated: Tensor | None, eps: float,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The op gconv_ext::batch_norm_dgrad: the gradients to x (of shape [0] where it is not needed), weight and bias;
    `activated` is y where that had a ReLU."""
    return torch.ops.gconv_ext.batch_norm_dgrad(dy, x, mean, var, weight, activated, eps, need_x)


def window_sum_fprop(x: Tensor, taps: Sequence[float], stride: int, padding: int) -> Tensor:
    """The op gconv_ext::window_sum_fprop: y as in window_sum.py.  No derivative."""
    return torch.ops.gconv_ext.window_sum_fprop(x, taps, stride, padding)


def window_sum_dgrad(dy: Tensor, taps: Sequence[float], input_size: Sequence[int], stride: int, padding: int) -> Tensor:
    """The op gconv_ext::window_sum_dgrad: the gradient to planes of input_size."""
    return torch.ops.gconv_ext.window_sum_dgrad(dy, taps, input_size, stride, padding)


def signature(*arguments: Any) -> bytes | None:
    """Bytes that differ wherever what is to be known of the arguments of a call before it is checked may differ: of tensors
    shapes, strides, dtypes, devices and requires_grad, of numbers, names, groups and tuples of these their values and types.
    None where there is more to know: of other arguments, and where PyTorch does not compute functions of plain tensors, as
    they are (traces, transforms, modes, autocast, forward-mode derivatives); always without the compiled library."""
    return None if _missing_reason or torch.compiler.is_compiling() else _C.signature(*arguments)


def contents(*tensors: Tensor | None) -> bytes:
    """Bytes of the shapes, dtypes and numbers of plain tensors on the CPU, and of whether inference mode is on: 128 bits for the
    numbers of each, equal for equal bits; for different ones with a probability of 2^-64 at most.  Not to be traced."""
    return _C.contents(*tensors)


# Fakes: what each op returns, in size and strides, without its numbers.


def _fake_expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str) -> Tensor:
    shape = weight.shape if relaxed_weight is None else weight.shape[1:]
    order = as_group(group).order
    in_channels = shape[1] if len(shape) == 4 else shape[1] * order
    return weight.new_empty((shape[0] * order, in_channels, shape[-1], shape[-1]))


def _fake_expand_filter_backward(
    grad_filter: Tensor, weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str,
    output_mask: list[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    grad_weight = weight.new_empty(weight.shape if output_mask[0] else (0,))
    needed = relaxed_weight if output_mask[1] else None
    grad_relaxed_weight = weight.new_empty((0,) if needed is None else needed.shape)
    return grad_weight, grad_relaxed_weight


def _fake_contract_fprop(x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], hidden.shape[2], *hidden.shape[:2]))


def _fake_contract_backward(
    dy: Tensor, x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int, output_mask: list[bool]
) -> tuple[Tensor, ...]:
    return tuple(like.new_empty(like.shape if needed else (0,)) for like, needed in zip((x, hidden, weight), output_mask))


def _fake_batch_norm_inference(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float, relu: bool
) -> Tensor:
    return x.new_empty(x.shape)


def _fake_batch_norm_fprop(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[1:2]), x.new_empty(x.shape[1:2])


def _fake_batch_norm_dgrad(
    dy: Tensor, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, activated: Tensor | None, eps: float,
    need_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return x.new_empty(x.shape if need_x else (0,)), x.new_empty(x.shape[1:2]), x.new_empty(x.shape[1:2])


def _fake_window_sum_fprop(x: Tensor, taps: list[float], stride: int, padding: int) -> Tensor:
    return x.new_empty((*x.shape[:-2], *((n + 2 * padding - math.isqrt(len(taps))) // stride + 1 for n in x.shape[-2:])))


def _fake_window_sum_dgrad(dy: Tensor, taps: list[float], input_size: list[int], stride: int, padding: int) -> Tensor:
    return dy.new_empty((*dy.shape[:-2], *input_size))


def _fake_fprop(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, transformed_weight: Tensor | None,
    group: str, relax_on: str, stride: list[int], padding: list[int], dilation: list[int], groups: int, relu: bool,
) -> Tensor:  # fmt: skip
    height, width = (
        (n + 2 * p - d * (weight.shape[-1] - 1) - 1) // s + 1
        for n, s, p, d in zip(x.shape[-2:], stride, padding, dilation)
    )
    return empty_map_like(x, weight.shape[relaxed_weight is not None], as_group(group).order, height, width)


def _transformed_numbers(weight: Tensor, relaxed_weight: Tensor | None, group: str) -> int:
    lifting, size = weight.dim() == 4 + (relaxed_weight is not None), weight.shape[-1]
    # Orbits of taps: every tap starts one of its own, but in a lifting convolution the group moves them.
    orbits = len(as_group(group).tap_orbits(int(size))) if lifting else size**2
    return math.prod(weight.shape[: -2 if lifting else -3]) * orbits * as_group(group).order


def _fake_irrep_transform_weight(
    weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str, groups: int
) -> Tensor:
    # On the CPU of the type that sums are formed in, on a GPU of the type that the tensor cores take.
    dtype = torch.promote_types(weight.dtype, torch.float32) if weight.device.type == "cpu" else weight.dtype
    return weight.new_empty((_transformed_numbers(weight, relaxed_weight, group),), dtype=dtype)


def _fake_triton_irrep_transform_weight(
    weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str, groups: int
) -> Tensor:
    return weight.new_empty((_transformed_numbers(weight, relaxed_weight, group),))


def _fake_dgrad(
    dy: Tensor, weight: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, group: str, relax_on: str,
    input_size: list[int], stride: list[int], padding: list[int], dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    bank_axis = int(relaxed_weight is not None)
    lifting, fields = weight.dim() == 4 + bank_axis, weight.shape[1 + bank_axis] * groups
    dx = empty_map_like(dy, fields, 1 if lifting else dy.shape[2], *input_size)
    return dx.squeeze(2) if lifting else dx


def _fake_wgrad(
    x: Tensor, dy: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, group: str, relax_on: str,
    kernel_size: int, stride: list[int], padding: list[int], dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    banks = () if relaxed_weight is None else relaxed_weight.shape[:1]
    return x.new_empty((*banks, dy.shape[1], x.shape[1] // groups, *x.shape[2:-2], kernel_size, kernel_size))


def _map_over(op: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """A batching rule that calls `op` once for each index of the mapped dimension and stacks the results."""

    def rule(info: VmapInfo, in_dims: Sequence[Any], *args: Any) -> tuple[Any, Any]:
        def select(index: int) -> list[Any]:
            return [arg.select(dim, index) if isinstance(dim, int) else arg for arg, dim in zip(args, in_dims)]

        results = [op(*select(index)) for index in range(info.batch_size)]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(torch.stack(parts) for parts in zip(*results)), (0,) * len(results[0])

    return rule


_FAKES: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "expand_filter": _fake_expand_filter,
    "expand_filter_backward": _fake_expand_filter_backward,
    "irrep_transform_weight": _fake_irrep_transform_weight,
    "triton_irrep_transform_weight": _fake_triton_irrep_transform_weight,
    "contract_fprop": _fake_contract_fprop,
    "triton_contract_fprop": _fake_contract_fprop,
    "contract_backward": _fake_contract_backward,
    "triton_contract_backward": _fake_contract_backward,
    "batch_norm_inference": _fake_batch_norm_inference,
    "batch_norm_fprop": _fake_batch_norm_fprop,
    "batch_norm_dgrad": _fake_batch_norm_dgrad,
    "window_sum_fprop": _fake_window_sum_fprop,
    "window_sum_dgrad": _fake_window_sum_dgrad,
    "fprop": _fake_fprop,
    "dgrad": _fake_dgrad,
    "wgrad": _fake_wgrad,
}


def register_rules(name: str) -> None:
    """The fake and the batching rule of the op of that name, once it is defined."""
    fake = _FAKES.get(name) or _FAKES[name.rpartition("_")[2]]
    torch.library.register_fake(f"gconv_ext::{name}", fake)
    torch.library.register_vmap(f"gconv_ext::{name}", _map_over(getattr(torch.ops.gconv_ext, name)))


if _missing_reason is None:
    for _name in _COMPILED_OPS:
        register_rules(_name)
