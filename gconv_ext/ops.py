"""Loads the compiled ops and declares their fakes.  Importing this module never fails: where the ops are missing,
`missing_reason()` says why."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from .groups import as_group


def _load() -> str | None:
    """Loads the library of ops; None, or why it could not be loaded."""
    libraries = sorted(Path(__file__).parent.glob("_C*.so"))
    if not libraries:
        return (
            "the compiled ops were not built, because no C++ compiler was found when gconv_ext was installed; "
            "install g++, then run `pip install --no-build-isolation --force-reinstall --no-deps .` in the source tree"
        )
    try:
        torch.ops.load_library(str(libraries[-1]))
    except (OSError, RuntimeError) as error:
        built_with = build_info().get("torch", "an unknown torch")
        return (
            f"the compiled ops could not be loaded (built with torch {built_with}, running torch {torch.__version__}): "
            f"{error}; reinstall gconv_ext to build it against this torch"
        )
    return None


def build_info() -> dict:
    """What the compiled modules were built with; empty where they were not built."""
    try:
        from . import _build_info
    except ImportError:
        return {}
    return _build_info.build_info()


_missing_reason = _load()


def missing_reason() -> str | None:
    """Why the compiled ops are missing, or None when they are there."""
    return _missing_reason


def expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str) -> Tensor:
    """The op gconv_ext::expand_filter: shapes as in functional.expand_filter.  No derivative; see autograd.py."""
    return torch.ops.gconv_ext.expand_filter(weight, relaxed_weight, group, relax_on)


def expand_filter_backward(
    grad_filter: Tensor, weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str, output_mask: list[bool]
) -> tuple[Tensor, Tensor]:
    """The op gconv_ext::expand_filter_backward: (grad_weight, grad_relaxed_weight), each of shape [0] where
    `output_mask` does not ask for it."""
    return torch.ops.gconv_ext.expand_filter_backward(grad_filter, weight, relaxed_weight, group, relax_on, output_mask)


def irrep_fprop(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, transformed_weight: Tensor | None,
    group: str, relax_on: str, stride: list[int], padding: list[int], dilation: list[int], groups: int, relu: bool,
) -> Tensor:  # fmt: skip
    """The op gconv_ext::irrep_fprop: lifting (x [B, C, H, W]) or group convolution, shapes as in functional.
    `transformed_weight` is None or what irrep_transform_weight made of the same weight."""
    options = (group, relax_on, stride, padding, dilation, groups, relu)
    return torch.ops.gconv_ext.irrep_fprop(x, weight, relaxed_weight, bias, transformed_weight, *options)


def irrep_transform_weight(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str, groups: int) -> Tensor:
    """The op gconv_ext::irrep_transform_weight: [numbers], in an order of this processor's.  No derivative."""
    return torch.ops.gconv_ext.irrep_transform_weight(weight, relaxed_weight, group, relax_on, groups)


def irrep_dgrad(
    dy: Tensor, weight: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, group: str, relax_on: str,
    input_size: list[int], stride: list[int], padding: list[int], dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """The op gconv_ext::irrep_dgrad: the gradient to the input of a group convolution.  With `activated`, the result of the
    convolution after ReLU, dy counts where that is above 0."""
    options = (group, relax_on, input_size, stride, padding, dilation, groups)
    return torch.ops.gconv_ext.irrep_dgrad(dy, weight, relaxed_weight, activated, *options)


def irrep_wgrad(
    x: Tensor, dy: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, group: str, relax_on: str,
    kernel_size: int, stride: list[int], padding: list[int], dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """The op gconv_ext::irrep_wgrad: the gradient to the weight of a lifting or group convolution; `activated` as in
    irrep_dgrad."""
    options = (group, relax_on, kernel_size, stride, padding, dilation, groups)
    return torch.ops.gconv_ext.irrep_wgrad(x, dy, relaxed_weight, activated, *options)


def lies_in_rows(map: Tensor) -> bool:
    """Whether a map [B, C, (|P|,) H, W] lies as rows of pixels, not as pixels of numbers, as csrc/irrep.cpp sees it."""
    field, column = map.stride(1), map.stride(-1)
    return field == 0 or field > column or (field == column and (map.shape[1] > 1 or map.shape[-1] * map.shape[-2] == 1))


def _empty_map_like(like: Tensor, fields, elements, height, width) -> Tensor:
    """A new map in the memory format of `like`, as csrc/irrep.cpp makes it."""
    sizes = (like.shape[0], fields, elements, height, width)
    if lies_in_rows(like):
        return like.new_empty(sizes)
    if like.dim() == 5 and like.stride(2) > like.stride(-1):
        plane = height * width * fields
        return like.new_empty_strided(sizes, (elements * plane, 1, plane, width * fields, fields))
    planes = fields * elements
    return like.new_empty_strided(sizes, (height * width * planes, elements, 1, width * planes, planes))


if _missing_reason is None:

    @torch.library.register_fake("gconv_ext::expand_filter")
    def _(weight, relaxed_weight, group, relax_on):
        shape = weight.shape if relaxed_weight is None else weight.shape[1:]
        order = as_group(group).order
        in_channels = shape[1] if len(shape) == 4 else shape[1] * order
        return weight.new_empty((shape[0] * order, in_channels, shape[-1], shape[-1]))

    @torch.library.register_fake("gconv_ext::expand_filter_backward")
    def _(grad_filter, weight, relaxed_weight, group, relax_on, output_mask):
        grad_weight = weight.new_empty(weight.shape if output_mask[0] else (0,))
        grad_relaxed_weight = weight.new_empty(relaxed_weight.shape if output_mask[1] else (0,))
        return grad_weight, grad_relaxed_weight

    @torch.library.register_fake("gconv_ext::irrep_fprop")
    def _(x, weight, relaxed_weight, bias, transformed_weight, group, relax_on, stride, padding, dilation, groups, relu):
        size = [
            (n + 2 * p - d * (weight.shape[-1] - 1) - 1) // s + 1
            for n, s, p, d in zip(x.shape[-2:], stride, padding, dilation)
        ]
        return _empty_map_like(x, weight.shape[relaxed_weight is not None], as_group(group).order, *size)

    @torch.library.register_fake("gconv_ext::irrep_transform_weight")
    def _(weight, relaxed_weight, group, relax_on, groups):
        lifting, size = weight.dim() == 4 + (relaxed_weight is not None), weight.shape[-1]
        # Orbits of taps: every tap starts one of its own, but in a lifting convolution the group moves them.
        orbits = as_group(group).tap_orbits(int(size)) if lifting else size**2
        pairs = math.prod(weight.shape[: -2 if lifting else -3])
        return weight.new_empty((pairs * orbits * as_group(group).order,), dtype=torch.promote_types(weight.dtype, torch.float32))

    @torch.library.register_fake("gconv_ext::irrep_dgrad")
    def _(dy, weight, relaxed_weight, activated, group, relax_on, input_size, stride, padding, dilation, groups):
        return _empty_map_like(dy, weight.shape[1 + (relaxed_weight is not None)] * groups, dy.shape[2], *input_size)

    @torch.library.register_fake("gconv_ext::irrep_wgrad")
    def _(x, dy, relaxed_weight, activated, group, relax_on, kernel_size, stride, padding, dilation, groups):
        banks = () if relaxed_weight is None else relaxed_weight.shape[:1]
        return x.new_empty((*banks, dy.shape[1], x.shape[1] // groups, *x.shape[2:-2], kernel_size, kernel_size))

    def _map_over(op):
        """A batching rule that calls `op` once for each index of the mapped dimension and stacks the results."""

        def rule(info, in_dims, *args):
            def select(index):
                return [arg.select(dim, index) if isinstance(dim, int) else arg for arg, dim in zip(args, in_dims)]

            results = [op(*select(index)) for index in range(info.batch_size)]
            if isinstance(results[0], Tensor):
                return torch.stack(results), 0
            return tuple(torch.stack(parts) for parts in zip(*results)), (0,) * len(results[0])

        return rule

    for _op in (expand_filter, expand_filter_backward, irrep_fprop, irrep_dgrad, irrep_wgrad):
        torch.library.register_vmap(f"gconv_ext::{_op.__name__}", _map_over(_op))
