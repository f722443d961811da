"""What is computed from weights alone, kept between calls while the weights stay the same and no gradient is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


class Kept:
    """compute(weight, relaxed_weight, *options), one result for each weight; an entry lives as long as its weight.

    A hit compares contents: version counters miss what is written through `.data`, and comparing reads each number once.
    A result must not be written to.
    """

    def __init__(self, compute: Callable[..., Tensor]):
        self._compute = compute
        self._lock = threading.Lock()
        # weight -> (copy of weight, copy of relaxed_weight, options, result)
        self._entries: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def __call__(self, weight: Tensor, relaxed_weight: Tensor | None, *options: str | int) -> Tensor:
        with self._lock:
            entry = self._entries.get(weight)
        if entry is not None:
            kept_weight, kept_relaxed_weight, kept_options, result = entry
            if (
                kept_options == options
                and _same(weight, kept_weight)
                and _same(relaxed_weight, kept_relaxed_weight)
                and result.is_inference() == torch.is_inference_mode_enabled()
            ):
                return result
        result = self._compute(weight, relaxed_weight, *options)
        copies = (weight.detach().clone(), None if relaxed_weight is None else relaxed_weight.detach().clone())
        with self._lock:
            self._entries[weight] = (*copies, options, result)
        return result


def may_keep(weight: Tensor, relaxed_weight: Tensor | None) -> bool:
    """Whether results of these weights may be kept: no gradient is needed, and they are plain tensors with contents.  Not on a
    GPU, where comparing contents would make the processor wait for it."""
    tensors = [weight] if relaxed_weight is None else [weight, relaxed_weight]
    return (
        weight.device.type == "cpu"
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        and plain(*tensors)
    )


def plain(*tensors: Tensor) -> bool:
    """Whether these are tensors with contents, seen by Python as they are: not traced, transformed, fake or of a subclass."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
        and all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
        and not torch._C._len_torch_dispatch_stack()
    )


def _same(tensor: Tensor | None, kept: Tensor | None) -> bool:
    if tensor is None or kept is None:
        return tensor is kept
    return tensor.dtype == kept.dtype and tensor.shape == kept.shape and torch.equal(tensor.detach(), kept)
