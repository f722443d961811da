"""The dense algorithm: one compiled pass expands the filter bank, PyTorch's convolution does the rest."""

from __future__ import annotations

from torch import Tensor

from . import autograd
from .kept import Kept, may_keep

_kept_filter = Kept(lambda *arguments: autograd.expand_filter(*arguments))


def expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str) -> Tensor:
    """As autograd.expand_filter; the result may be a kept tensor, which the caller must not write to."""
    expand = _kept_filter if may_keep(weight, relaxed_weight) else autograd.expand_filter
    return expand(weight, relaxed_weight, group, relax_on)
