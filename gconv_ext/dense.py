"""The dense algorithm: one compiled pass expands the filter bank, PyTorch's convolution does the rest.

The expanded filter is kept between calls while the weights stay the same and no gradient is needed.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from . import autograd

# weight -> (copy of weight, copy of relaxed_weight, group, relax_on, filter).  An entry lives as long as its weight.
# A hit compares contents: version counters miss what is written through `.data`, and comparing reads each number of
# the bank once, where expanding it writes |P| numbers for it.
_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_lock = threading.Lock()


def expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str) -> Tensor:
    """As autograd.expand_filter; the result may be a kept tensor, which the caller must not write to."""
    if not _may_keep(weight, relaxed_weight):
        return autograd.expand_filter(weight, relaxed_weight, group, relax_on)
    with _lock:
        kept = _kept.get(weight)
    if kept is not None:
        kept_weight, kept_relaxed_weight, *kept_options, filter = kept
        if (
            kept_options == [group, relax_on]
            and _same(weight, kept_weight)
            and _same(relaxed_weight, kept_relaxed_weight)
            and filter.is_inference() == torch.is_inference_mode_enabled()
        ):
            return filter
    filter = autograd.expand_filter(weight, relaxed_weight, group, relax_on)
    copies = (weight.detach().clone(), None if relaxed_weight is None else relaxed_weight.detach().clone())
    with _lock:
        _kept[weight] = (*copies, group, relax_on, filter)
    return filter


def _may_keep(weight: Tensor, relaxed_weight: Tensor | None) -> bool:
    tensors = [weight] if relaxed_weight is None else [weight, relaxed_weight]
    return (
        not torch.compiler.is_compiling()
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        # Transforms, fake tensors and other subclasses have no contents to compare.
        and torch._C._functorch.peek_interpreter_stack() is None
        and all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
        and not torch._C._len_torch_dispatch_stack()
    )


def _same(tensor: Tensor | None, kept: Tensor | None) -> bool:
    if tensor is None or kept is None:
        return tensor is kept
    return tensor.dtype == kept.dtype and tensor.shape == kept.shape and torch.equal(tensor.detach(), kept)
