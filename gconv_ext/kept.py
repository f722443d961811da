"""What is computed from weights alone, kept between calls while the weights stay the same and no gradient is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from . import ops


class Kept:
    """compute(weight, relaxed_weight, *options), one result for each weight; an entry lives as long as its weight.

    A hit compares fingerprints of the contents: version counters miss what is written through `.data`. A result must not be
    written to.
    """

    def __init__(self, compute: Callable[..., Tensor]):
        self._compute = compute
        self._lock = threading.Lock()
        # weight -> (what result is of, result)
        self._entries: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def __call__(self, weight: Tensor, relaxed_weight: Tensor | None, *options: str | int) -> Tensor:
        with self._lock:
            entry = self._entries.get(weight)
        state = (_state(weight), relaxed_weight if relaxed_weight is None else _state(relaxed_weight), options)
        if entry is not None:
            kept_state, result = entry
            if kept_state == state and result.is_inference() == torch.is_inference_mode_enabled():
                return result
        result = self._compute(weight, relaxed_weight, *options)
        with self._lock:
            self._entries[weight] = (state, result)
        return result


def may_keep(weight: Tensor, relaxed_weight: Tensor | None, known_free: bool = False) -> bool:
    """Whether results of these weights may be kept: they are derivative_free, which may be known.  Not on a GPU, where a look
    at the contents would make the processor wait for it."""
    return ops.is_compiled("fingerprint", weight.device) and (known_free or derivative_free(weight, relaxed_weight))


def derivative_free(*tensors: Tensor | None) -> bool:
    """Whether no derivative of a function of these is being taken, and they are plain."""
    given = [tensor for tensor in tensors if tensor is not None]
    if torch.is_grad_enabled() and any([tensor.requires_grad for tensor in given]):
        return False
    return plain(*given) and not forward_mode()


def plain(*tensors: Tensor) -> bool:
    """Whether these are tensors with contents, seen by Python as they are: not traced, transformed, fake or of a subclass."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
        and all([type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors])
        and not torch._C._len_torch_dispatch_stack()
    )


def forward_mode() -> bool:
    """Whether forward-mode derivatives are being taken.  The compiled ops have none: torch.compile does not capture a
    Function that defines jvp."""
    return not torch.compiler.is_compiling() and torch.autograd.forward_ad._current_level >= 0


def _state(tensor: Tensor) -> tuple[torch.dtype, torch.Size, tuple[int, int]]:
    return tensor.dtype, tensor.shape, ops.fingerprint(tensor)
