"""Random arguments for the five kinds of convolution, and one way to call them all."""

import torch

from gconv_ext import functional


def is_lifting(kind):
    return "lifting" in kind


def relax_on(kind):
    return "input" if kind == "relaxed input" else "output"


def make(kind, group, *, batch=2, in_fields=2, out_fields=3, k=3, size=(6, 7), banks=2, groups=1, bias=True, dtype=torch.float64):
    """(x, weight[, relaxed_weight], bias or None), none of them symmetric."""
    elements = () if is_lifting(kind) else (group.order,)
    bank = (out_fields, in_fields // groups, *elements, k, k)
    arguments = [torch.randn(batch, in_fields, *elements, *size, dtype=dtype)]
    if "relaxed" in kind:
        arguments += [torch.randn(banks, *bank, dtype=dtype), torch.randn(banks, group.order, dtype=dtype)]
    else:
        arguments += [torch.randn(bank, dtype=dtype)]
    return [*arguments, torch.randn(out_fields, dtype=dtype) if bias else None]


def call(kind, arguments, group, **options):
    if "relaxed" in kind:
        function = functional.relaxed_lifting_conv2d if is_lifting(kind) else functional.relaxed_group_conv2d
        return function(*arguments, group=group, relax_on=relax_on(kind), **options)
    function = functional.lifting_conv2d if is_lifting(kind) else functional.group_conv2d
    return function(*arguments, group=group, **options)
