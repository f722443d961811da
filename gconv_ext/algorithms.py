"""What each algorithm supports, and which one "auto" takes: the only place that decides."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import autograd, dense, irrep, ops, reference
from .groups import PointGroup


class Convolution(NamedTuple):
    """One checked call: what every algorithm is asked to compute."""

    x: Tensor
    weight: Tensor
    relaxed_weight: Tensor | None
    bias: Tensor | None
    group: PointGroup
    relax_on: str
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def lifting(self) -> bool:
        return self.x.dim() == 4

    @property
    def planar_options(self) -> tuple:
        """(stride, padding, dilation, groups), as torch.nn.functional.conv2d takes them."""
        return self.stride, self.padding, self.dilation, self.groups


class Explanation(NamedTuple):
    """What "auto" takes for a call, and why.

    Attributes:
        algorithm: the name of the algorithm.
        reason: why it was taken.
        rejected: {name of another algorithm: why not}.
    """

    algorithm: str
    reason: str
    rejected: dict[str, str]

    def __str__(self) -> str:
        rows = [f"auto takes {self.algorithm!r}: {self.reason}"]
        return "\n".join(rows + [f"  not {name!r}: {why}" for name, why in self.rejected.items()])


COMPILED_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def compiled_unsupported(weight: Tensor) -> str | None:
    """Why the compiled ops do not support this filter bank, or None when they do."""
    if weight.device.type != "cpu":
        return f"it supports tensors on the CPU, got {weight.device}"
    if weight.dtype not in COMPILED_DTYPES:
        supported = ", ".join(str(dtype).removeprefix("torch.") for dtype in COMPILED_DTYPES)
        return f"it supports {supported}, got {weight.dtype}"
    return None


def _run_reference(call: Convolution) -> Tensor:
    filter = reference.expand_filter(call.weight, call.relaxed_weight, call.group, call.relax_on, call.lifting)
    return reference.correlate(call.x, filter, call.bias, call.group, *call.planar_options)


def _run_dense(call: Convolution) -> Tensor:
    filter = dense.expand_filter(call.weight, call.relaxed_weight, call.group.name, call.relax_on)
    return reference.correlate(call.x, filter, call.bias, call.group, *call.planar_options)


def _run_irrep(call: Convolution) -> Tensor:
    options = autograd.ConvOptions(call.group.name, *call.planar_options)
    return irrep.conv2d(call.x, call.weight, call.relaxed_weight, call.bias, call.relax_on, options)


_RUN = {"reference": _run_reference, "dense": _run_dense, "irrep": _run_irrep}
ALGORITHMS = ("auto", *_RUN)


def check_algorithm(algorithm: str) -> None:
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(map(repr, ALGORITHMS))}, got {algorithm!r}")


def choose(call: Convolution) -> Explanation:
    """The rule behind "auto": the compiled expansion wherever it can run, since it computes the same filter in one pass
    that the reference forms from |P| rotated copies and their sum."""
    why_not = ops.missing_reason() or compiled_unsupported(call.weight)
    if why_not:
        return Explanation("reference", "plain PyTorch supports every call", {"dense": why_not})
    return Explanation(
        "dense",
        "the filter is expanded in one compiled pass, then convolved by PyTorch",
        {"reference": "the same convolution, with the filter expanded step by step in PyTorch"},
    )


def run(call: Convolution, algorithm: str) -> Tensor:
    """Computes the call with the named algorithm; errors as in api.functional."""
    check_algorithm(algorithm)
    if algorithm == "auto":
        algorithm = choose(call).algorithm
    elif algorithm != "reference":
        if ops.missing_reason():
            raise RuntimeError(f"algorithm={algorithm!r} is not available: {ops.missing_reason()}")
        if reason := compiled_unsupported(call.weight):
            raise ValueError(f"algorithm={algorithm!r} does not support this call: {reason}")
    return _RUN[algorithm](call)


def expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: PointGroup, relax_on: str, lifting: bool) -> Tensor:
    """The dense filter of a checked filter bank, by the compiled op where it can run."""
    if ops.missing_reason() or compiled_unsupported(weight):
        return reference.expand_filter(weight, relaxed_weight, group, relax_on, lifting)
    return autograd.expand_filter(weight, relaxed_weight, group.name, relax_on)
