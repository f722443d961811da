"""What is computed from weights alone, kept between calls while the weights stay the same and no gradient is needed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import ops


class Kept:
    """compute(weight, relaxed_weight, *options), one result for each weight; an entry lives as long as its weight.

    A hit compares fingerprints of the contents: version counters miss what is written through `.data`. A result must not be
    written to.
    """

    def __init__(self, compute: Callable[..., Tensor]):
        self._compute = compute
        # id of a weight -> (a reference that ends the entry, what result is of, result). A dictionary with weak keys takes
        # longer to ask.
        self._entries: dict[int, tuple[weakref.ref[Tensor], tuple[Any, ...], Tensor]] = {}

    def __call__(self, weight: Tensor, relaxed_weight: Tensor | None, *options: str | int) -> Tensor:
        key = id(weight)
        state = (ops.contents(weight, relaxed_weight), options)
        entry = self._entries.get(key)
        if entry is not None and entry[1] == state:
            return entry[2]
        result = self._compute(weight, relaxed_weight, *options)
        self._entries[key] = (weakref.ref(weight, lambda _: self._entries.pop(key, None)), state, result)
        return result


def may_keep(weight: Tensor, relaxed_weight: Tensor | None) -> bool:
    """Whether results of these weights may be kept: no derivative is being taken, and contents can be compared. Not on a GPU,
    where a look at them would make the processor wait for it, and not while torch.jit.trace records what is computed."""
    plain_cpu = weight.device.type == "cpu" and ops.missing_reason() is None
    return plain_cpu and derivative_free(weight, relaxed_weight) and not _traced()


def derivative_free(*tensors: Tensor | None) -> bool:
    """Whether no derivative of a function of these is being taken, and they are plain."""
    given = [tensor for tensor in tensors if tensor is not None]
    if torch.is_grad_enabled() and any([tensor.requires_grad for tensor in given]):
        return False
    return plain(*given) and not forward_mode()


ORDINARY = {Tensor, torch.nn.Parameter}


def plain(*tensors: Tensor) -> bool:
    """Whether these are tensors with contents, seen by Python as they are: not traced, transformed, fake or of a subclass."""
    return _untransformed() and all([type(tensor) in ORDINARY for tensor in tensors])


def _untransformed() -> bool:
    return (
        not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
        and not torch._C._len_torch_dispatch_stack()
    )


def _traced() -> bool:
    return not torch.compiler.is_compiling() and torch._C._is_tracing()  # torch.compile does not take the second question


def differentiated() -> bool:
    """Whether what a backward pass computes is to be differentiated itself."""
    return torch.is_grad_enabled() or forward_mode()


def forward_mode() -> bool:
    """Whether forward-mode derivatives are being taken.  The compiled ops have none: torch.compile does not capture a
    Function that defines jvp."""
    return not torch.compiler.is_compiling() and torch.autograd.forward_ad._current_level >= 0
