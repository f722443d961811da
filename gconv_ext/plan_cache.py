"""Plans of convolutions, remembered: a call like an earlier one is neither checked nor planned again.

Checks and choice look at what ops.signature holds of a call's tensors and options, at nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .algorithms import Plan

_MOST_PLANS = 4096  # images may come in any size


class PlanCache:
    """{signature: plan}; without a signature nothing is remembered."""

    def __init__(self) -> None:
        self._plans: dict[bytes, Plan] = {}

    def get(self, signature: bytes | None) -> Plan | None:
        return None if signature is None else self._plans.get(signature)

    def add(self, signature: bytes | None, plan: Plan) -> None:
        if signature is None:
            return
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[signature] = plan
