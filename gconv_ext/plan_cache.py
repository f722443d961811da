"""Plans of convolutions, remembered: a call like an earlier one is neither checked nor planned again.

Checks and choice look at the options of a call and at what signature_of() holds of its tensors, at nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .kept import ORDINARY, eager

if TYPE_CHECKING:
    from .algorithms import Plan

_MOST_PLANS = 4096  # images may come in any size


def signature_of(*tensors: Tensor | None) -> tuple[Any, ...] | None:
    """What is to be known of tensors, or of Nones, before any check; or None, if there is more to know of them: where they are
    no ordinary dense tensors in eager PyTorch, and under autocast."""
    if not eager() or torch._C._is_any_autocast_enabled():
        return None
    signature: list[Any] = [torch.is_grad_enabled()]
    for tensor in tensors:
        if tensor is None:
            signature.append(None)
        elif type(tensor) in ORDINARY and tensor.layout is torch.strided and not tensor.is_nested:
            signature += (tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad)
        else:
            return None
    return tuple(signature)


class PlanCache:
    """{(signature, options): plan}."""

    def __init__(self) -> None:
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def get(self, signature: tuple[Any, ...] | None, options: tuple[Any, ...]) -> Plan | None:
        return None if signature is None else self._plans.get((signature, options))

    def add(self, signature: tuple[Any, ...] | None, options: tuple[Any, ...], plan: Plan) -> None:
        if signature is None:
            return
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[signature, options] = plan
