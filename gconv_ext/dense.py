"""The dense algorithm: one compiled pass expands the filter bank, PyTorch's convolution does the rest."""

from __future__ import annotations

from torch import Tensor

from . import autograd
from .kept import Kept

_kept_filter = Kept(lambda *arguments: autograd.expand_filter(*arguments))


def expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str, keep: bool) -> Tensor:
    """As autograd.expand_filter; `keep`: kept.may_keep of the weights.  The result may be a kept tensor, which the caller must not
    write to."""
    expand = _kept_filter if keep else autograd.expand_filter
    return expand(weight, relaxed_weight, group, relax_on)
