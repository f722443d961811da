"""Loads the compiled ops and declares their fakes.  Importing this module never fails: where the ops are missing,
`missing_reason()` says why."""

from __future__ import annotations

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

    torch.library.register_vmap("gconv_ext::expand_filter", _map_over(expand_filter))
    torch.library.register_vmap("gconv_ext::expand_filter_backward", _map_over(expand_filter_backward))
