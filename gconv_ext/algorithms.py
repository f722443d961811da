"""What each algorithm supports, and which one "auto" takes: the only place that decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from . import autograd, dense, kernels, ops, reference, triton_kernels
from .groups import PointGroup
from .kept import derivative_free, forward_mode, may_keep
from .memory_format import lies_in_rows


@dataclass(frozen=True)  # PyTorch 2.10 does not trace the properties of a NamedTuple
class Convolution:
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
    activation: str | None

    @property
    def lifting(self) -> bool:
        return self.x.dim() == 4

    @property
    def planar_options(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
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


_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _wrong_dtype(weight: Tensor, supported: tuple[torch.dtype, ...]) -> str | None:
    if weight.dtype in supported:
        return None
    names = ", ".join(str(dtype).removeprefix("torch.") for dtype in supported)
    return f"it supports {names}, got {weight.dtype}"


def _wrong_device(weight: Tensor, supported: str) -> str:
    return f"it supports tensors on {supported}, got {weight.device}"


class Support(NamedTuple):
    """Whether an algorithm can compute a call, and with which family of kernels.

    Attributes:
        kernels: the family in ops.py, or "" where PyTorch convolves.
        missing: why a back end that it needs is missing, or None.
        unsupported: why it does not support the call, or None.
    """

    kernels: str = ""
    missing: str | None = None
    unsupported: str | None = None

    @property
    def why_not(self) -> str | None:
        return self.missing or self.unsupported


def _triton(weight: Tensor, kernels: str) -> Support:
    if reason := triton_kernels.missing_reason():
        return Support(missing=reason)
    if not triton_kernels.runs_on(weight.device):
        return Support(unsupported=_wrong_device(weight, "a GPU"))
    return Support(kernels, unsupported=_wrong_dtype(weight, _TRITON_DTYPES))


def _expansion(weight: Tensor) -> Support:
    """The filter expansion in one pass, compiled or in Triton."""
    if weight.device.type == "cpu":
        return Support(missing=ops.missing_reason(), unsupported=_wrong_dtype(weight, _DTYPES))
    if not triton_kernels.runs_on(weight.device):
        return Support(unsupported=_wrong_device(weight, "the CPU or a GPU"))
    missing = None if ops.is_compiled("expand_filter", weight.device) else triton_kernels.missing_reason()
    return Support(missing=missing, unsupported=_wrong_dtype(weight, _DTYPES))


def _support_irrep(weight: Tensor) -> Support:
    if weight.device.type == "cpu":
        return Support("irrep", ops.missing_reason(), _wrong_dtype(weight, _DTYPES))
    if ops.is_compiled("irrep_fprop", weight.device):
        return Support("irrep", unsupported=_wrong_dtype(weight, _DTYPES))
    return _triton(weight, "triton_irrep")


def _support_fused(weight: Tensor) -> Support:
    if ops.is_compiled("fused_fprop", weight.device):
        return Support("fused", unsupported=_wrong_dtype(weight, _DTYPES))
    return _triton(weight, "triton_fused")


_SUPPORT = {
    "reference": lambda weight: Support(),
    "dense": _expansion,
    "fused": _support_fused,
    "irrep": _support_irrep,
    "triton_fused": lambda weight: _triton(weight, "triton_fused"),
    "triton_irrep": lambda weight: _triton(weight, "triton_irrep"),
}
ALGORITHMS = ("auto", *_SUPPORT)


_CONTRACTION_SUPPORT = {
    "reference": lambda weight: Support(),
    "contract": lambda weight: Support("contract"),
    "triton_contract": lambda weight: _triton(weight, "triton_contract"),
}
CONTRACTION_ALGORITHMS = ("auto", *_CONTRACTION_SUPPORT)


def support(algorithm: str, weight: Tensor) -> Support:
    """Of the algorithm of that name, other than "auto", for filter banks with this one's device and dtype."""
    return _SUPPORT[algorithm](weight)


def check_algorithm(algorithm: str) -> None:
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(map(repr, ALGORITHMS))}, got {algorithm!r}")


class Plan(NamedTuple):
    """How a checked call is computed; whatever its tensors hold.

    Attributes:
        algorithm: resolved, not "auto".
        options: what our own kernels take, or, of family "", where PyTorch convolves.
        group, lifting: of the call.
        relu: whether max(y, 0) is asked for.
        free: whether no derivative is being taken, as kept.derivative_free says of all tensors.
        keep: whether what is computed from the weights alone is kept (kept.py): dense's filter, compiled irrep's transform.
        cast: what autocast has our own kernels' tensors cast to, or None.
    """

    algorithm: str
    options: autograd.ConvOptions
    group: PointGroup
    lifting: bool
    relu: bool
    free: bool
    keep: bool
    cast: torch.dtype | None


def compute(plan: Plan, x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The result of the call that the plan was made of, or of one with the same signature (plan_cache.py)."""
    options = plan.options
    if options.kernels:
        if plan.cast is not None:
            x, weight = x.to(plan.cast), weight.to(plan.cast)
            relaxed_weight, bias = (t if t is None else t.to(plan.cast) for t in (relaxed_weight, bias))
        return kernels.conv2d(x, weight, relaxed_weight, bias, plan.relu, plan.free, plan.keep, options)
    if plan.algorithm == "dense":
        filter = dense.expand_filter(weight, relaxed_weight, options.group, options.relax_on, plan.keep)
    else:
        filter = reference.expand_filter(weight, relaxed_weight, plan.group, options.relax_on, plan.lifting)
    y = reference.correlate(x, filter, bias, plan.group, options.stride, options.padding, options.dilation, options.groups)
    return y.relu() if plan.relu else y


# Real multiplications of one (input field, output field, orbit) triple, summed over the irreps, and what the butterflies of
# one (input field, orbit) pair cost, in multiplications.  The second, and the numbers below, are fitted to bench/results.
_IRREP_PRODUCTS = {"C1": 1, "C2": 2, "D1": 2, "C4": 6, "D2": 4, "D4": 12}
_BUTTERFLIES = {"C1": 1, "C2": 6, "D1": 6, "C4": 15, "D2": 11, "D4": 32}
_ROWS, _LAST = 15, 20  # to read or write one number: from rows of pixels, and from pixels of numbers
_PIXELS = 16  # computed together; a small map leaves some idle, or shares them with others
_ROW_END = 60  # one row's end within a vector, for each number of an orbit
_DENSE_RATE = 1.1  # multiplications that PyTorch's convolution does in the time of one of ours
_CHANNELS, _DENSE_ROWS = 16, 36  # planes computed together by PyTorch's convolution; a number's way there from rows of pixels


class _Sizes(NamedTuple):
    """What the estimates are made of; fields are those of one of `groups` blocks."""

    order: int
    out_fields: int
    in_fields: int
    taps: int
    height: int  # of the result
    width: int
    read: float  # numbers per output pixel
    written: int
    rows: bool  # rows of pixels in memory, not pixels of numbers


def _sizes(call: Convolution) -> _Sizes:
    order, banks, size = call.group.order, call.weight.dim() - call.x.dim(), call.weight.shape[-1]
    out_fields, in_fields = call.weight.shape[banks] // call.groups, call.weight.shape[banks + 1]
    height, width = (
        (n + 2 * p - d * (size - 1) - 1) // s + 1
        for n, s, p, d in zip(call.x.shape[-2:], call.stride, call.padding, call.dilation)
    )
    read = in_fields * (1 if call.lifting else order) * call.x.shape[-2] * call.x.shape[-1] / (height * width)
    return _Sizes(order, out_fields, in_fields, size**2, height, width, read, out_fields * order, lies_in_rows(call.x))


def dense_cost(call: Convolution) -> float:
    """Time of the dense algorithm per output pixel and block of fields, in multiplications at the irrep kernel's rate."""
    s = _sizes(call)
    whole = lambda planes: -(-planes // _CHANNELS) * _CHANNELS
    read = s.in_fields * (1 if call.lifting else s.order)
    if s.rows and not call.lifting:  # it brings them into that order itself, and fills up with zeros
        read = whole(read)
    products = whole(s.order * s.out_fields) * read * s.taps
    return products / _DENSE_RATE + (_DENSE_ROWS if s.rows else 0) * (s.read + s.written)


def irrep_cost(call: Convolution) -> float:
    """Time of the irrep algorithm per output pixel and block of fields, in multiplications: the irreps' products and the
    butterflies, and the numbers read and written.  A relaxed convolution has the products of L strict ones where dense sums
    the banks first: L · 6/16 (C4) or L · 12/64 (D4) of dense's."""
    s = _sizes(call)
    # Orbits of taps: every tap starts one of its own, but in a lifting convolution the group moves them.
    orbits = len(call.group.tap_orbits(call.weight.shape[-1])) if call.lifting else s.taps
    # With L banks, each has its products; on the input each has its butterflies too.
    banks, relaxed = (1, False) if call.relaxed_weight is None else (call.relaxed_weight.shape[0], True)
    products = banks * _IRREP_PRODUCTS[call.group.name] * s.out_fields
    products += (banks if call.relax_on == "input" else 1) * _BUTTERFLIES[call.group.name]
    # Pixels with the ends of rows that lie between them, of one image, and of one among many: behind it, or beside it. Or
    # none between them, where vectors in which rows end take longer to load.
    between = 0 if s.rows and max(call.stride) == 1 else call.padding[0]
    flat, among_many = ((s.height + rows) * (s.width + call.padding[1]) for rows in (0, between))
    packed = s.height * s.width + s.height * _ROW_END * s.order / products
    idle = min(-(-flat // _PIXELS) * _PIXELS, among_many, packed) / (s.height * s.width)
    cost = orbits * s.in_fields * products * idle + (_ROWS if s.rows else _LAST) * (s.read + s.written)
    tensors = [tensor for tensor in (call.x, call.weight, call.relaxed_weight) if tensor is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        # dgrad of a strided convolution reads zeros for some elements of an orbit and multiplies them.
        cost *= 1.25 if call.x.requires_grad and max(call.stride) > 1 else 1
        # The gradient of relaxed weights convolves once more, and writes the result of every bank.
        cost *= 1.8 if relaxed else 1
    return cost


def choose(call: Convolution) -> Explanation:
    """The rule behind "auto": on the CPU, irrep where its estimated time is below dense's, in float32 and float64; PyTorch has
    matrix units for the 16-bit types, and the irrep kernel computes them in float32.  On a GPU dense, while no measurement of
    our own kernels there backs another choice.  The reference where dense is not to be had, and for forward-mode
    derivatives."""
    not_named = {name: "its kernels were not measured on a GPU; ask for it by name" for name in ("fused", "irrep")}
    rejected = {"reference": "the same as dense, with the filter expanded step by step in PyTorch"}
    dense = "one compiled pass expands the filter, PyTorch convolves with it"
    if forward_mode():
        others = dict.fromkeys(("dense", *not_named), "its derivatives are those of reverse mode")
        return Explanation("reference", "PyTorch's forward-mode derivatives", others)
    if why_not := _SUPPORT["dense"](call.weight).why_not:
        others = {name: _SUPPORT[name](call.weight).why_not or not_named[name] for name in not_named}
        return Explanation("reference", "plain PyTorch supports every call", {"dense": why_not} | others)
    if call.weight.device.type != "cpu":
        return Explanation("dense", dense, rejected | {name: _SUPPORT[name](call.weight).why_not or why for name, why in not_named.items()})
    rejected["fused"] = _wrong_device(call.weight, "a GPU")
    if call.group.order == 1:
        return Explanation("dense", dense, rejected | {"irrep": "C1 has one irrep, so there is nothing to save"})
    autocast = torch.is_autocast_enabled(call.x.device.type)
    if autocast or call.weight.dtype not in (torch.float32, torch.float64):
        return Explanation("dense", dense, rejected | {"irrep": "PyTorch's convolution has matrix units for 16-bit types"})
    ratio = dense_cost(call) / irrep_cost(call)
    # While a graph is captured the sizes may be symbols, and nobody reads the reason.
    symbols = torch.compiler.is_compiling() or not isinstance(ratio, float)
    times = "some" if symbols else f"{ratio:.1f}"
    if ratio > 1.05:  # fitted together with the numbers above
        reason = f"fewer multiplications; estimated {times} times as fast as dense"
        return Explanation("irrep", reason, rejected | {"dense": "estimated slower"})
    return Explanation("dense", dense, rejected | {"irrep": f"estimated {times} times as fast as dense"})


def _resolve(call: Convolution, algorithm: str) -> tuple[str, str]:
    """(algorithm, family of kernels) to compute the call with."""
    check_algorithm(algorithm)
    if algorithm == "auto":
        algorithm = choose(call).algorithm
    return algorithm, _kernels(algorithm, _SUPPORT[algorithm](call.weight))


def contraction_kernels(algorithm: str, weight: Tensor) -> str:
    """The family of ops that computes contraction.contract with the named algorithm, "" for the reference; errors as
    for run.  "auto" is "contract": compiled on the CPU, and on a GPU PyTorch's matrix products, while no measurement
    there backs ours; the reference for forward-mode derivatives."""
    if algorithm not in CONTRACTION_ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(map(repr, CONTRACTION_ALGORITHMS))}, got {algorithm!r}")
    if algorithm == "auto":
        algorithm = "reference" if forward_mode() else "contract"
    return _kernels(algorithm, _CONTRACTION_SUPPORT[algorithm](weight))


def _kernels(algorithm: str, support: Support) -> str:
    if support.missing:
        raise RuntimeError(f"algorithm={algorithm!r} is not available: {support.missing}")
    if support.unsupported:
        raise ValueError(f"algorithm={algorithm!r} does not support this call: {support.unsupported}")
    return support.kernels


def plan(call: Convolution, algorithm: str) -> Plan:
    """How to compute the call with the named algorithm; errors as in functional."""
    algorithm, family = _resolve(call, algorithm)
    options = autograd.ConvOptions(family, call.group.name, call.relax_on, *call.planar_options)
    free = derivative_free(call.x, call.weight, call.relaxed_weight, call.bias)
    device = call.x.device.type
    cast = torch.get_autocast_dtype(device) if family and torch.is_autocast_enabled(device) else None
    # Compiled irrep takes what is kept where no derivative is taken at all; the dense filter serves one to x as well.
    keeps = algorithm == "dense" or (family == "irrep" and free and cast is None)
    keep = keeps and may_keep(call.weight, call.relaxed_weight)
    return Plan(algorithm, options, call.group, call.lifting, call.activation == "relu", free, keep, cast)


def run_adjoint(call: Convolution, x: Tensor, algorithm: str) -> Tensor:
    """Applies the adjoint of a strict group convolution to x, a map of the size of its result, and adds the bias, one
    number for each of the call's input fields.  Of call.x the shape counts alone."""
    even = call.weight.shape[-1] % 2 == 0
    by_phases = even and max(call.stride) > 1 and not forward_mode()
    if algorithm == "auto" and by_phases and not _SUPPORT["dense"](call.weight).why_not:
        algorithm = "dense"  # the taps of an orbit meet different phases of the stride: irrep would multiply zeros
    algorithm, family = _resolve(call, algorithm)
    size = (call.x.shape[-2], call.x.shape[-1])
    if family:
        options = autograd.ConvOptions(family, call.group.name, call.relax_on, *call.planar_options)
        y = kernels.conv_transpose2d(x, call.weight, size, options)
    else:
        if algorithm == "dense":
            filter = dense.expand_filter(call.weight, None, call.group.name, call.relax_on, may_keep(call.weight, None))
        else:
            filter = reference.expand_filter(call.weight, None, call.group, call.relax_on, lifting=False)
        y = reference.correlate_adjoint(x, filter, size, call.group, *call.planar_options)
    return y if call.bias is None else y + call.bias.to(y.dtype)[:, None, None, None]


def expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: PointGroup, relax_on: str, lifting: bool) -> Tensor:
    """The dense filter of a checked filter bank, by the compiled op where it can run."""
    if _expansion(weight).why_not:
        return reference.expand_filter(weight, relaxed_weight, group, relax_on, lifting)
    return autograd.expand_filter(weight, relaxed_weight, group.name, relax_on)
