"""Tells, layer by layer, whether a network samples its maps symmetrically, as exact equivariance needs it (paper 3)."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .checks import check_positive
from .groups import PointGroup
from .nn import SpatialGlobalPool2d

Size = tuple[int, int]

_WINDOWED = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)
_PADDING = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)
# Window j of o runs from ⌊j·i/o⌋ to ⌈(j+1)·i/o⌉: symmetric for every i and o.
_ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, SpatialGlobalPool2d)


def _is_ours(layer: nn.Module) -> bool:
    return any(base.__module__.startswith("gconv_ext.nn.") for base in type(layer).__mro__)


def _has_windows(layer: nn.Module) -> bool:
    """PyTorch's convolutions and pooling layers, and ours: those with a kernel_size and a stride."""
    ours = _is_ours(layer) and hasattr(layer, "kernel_size") and hasattr(layer, "stride")
    return ours or isinstance(layer, _WINDOWED)


def _upsamples(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Upsample) or (_is_ours(layer) and hasattr(layer, "scale_factor"))


def _is_known(layer: nn.Module) -> bool:
    return _has_windows(layer) or _upsamples(layer) or isinstance(layer, (*_PADDING, *_ADAPTIVE))


class LayerExactness(NamedTuple):
    """One row of a report.

    Attributes:
        name: in the module tree; "" is the network itself.
        layer: its type, with what it samples by: k, s, p, d.
        input_size, output_size: (H, W) of its maps in pixels; () for a vector.
        stride: for rows and columns.
        remainder: (i + 2p − d(k − 1) − 1) mod s for rows and columns, the pixels by which the windows lie off the
            centre; negative where they reach beyond the edge (ceil_mode); None for what the report does not know.
        holds: whether the layer keeps the symmetry; None where the report cannot tell.
    """

    name: str
    layer: str
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    stride: Size = (1, 1)
    remainder: Size | None = None
    holds: bool | None = None

    @property
    def _verdict(self) -> str:
        if self.remainder is None:
            return "unknown"
        rows, columns = self.remainder
        return (str(rows) if rows == columns else f"{rows}, {columns}") + ("" if self.holds else "  breaks")


class Exactness(NamedTuple):
    """The report of `exactness`.

    Attributes:
        input_size: (H, W) of the network's input.
        group: of the network's layers; None for a network without any, judged under quarter turns and mirrors.
        rows: a LayerExactness for each call of a convolution, pooling, padding or upsampling layer, in their order, and
            for each change of size that the report cannot explain.
        nearest_sizes: the input sizes nearest to the given one at which the whole network is exact: itself where it is,
            else at most one below and one above, ascending.  Ints, or pairs where input_size was given as one.
    """

    input_size: Size
    group: PointGroup | None
    rows: tuple[LayerExactness, ...]
    nearest_sizes: tuple[int, ...] | tuple[Size, ...]

    @property
    def exact(self) -> bool:
        """Whether every layer is known to keep the symmetry."""
        return all(row.holds for row in self.rows)

    def __str__(self) -> str:
        table = [("layer", "type", "input", "output", "(i + 2p - d(k - 1) - 1) mod s")]
        table += [
            (row.name or "(network)", row.layer, _size(row.input_size), _size(row.output_size), row._verdict)
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*table)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
        moves = self.group.name if self.group else "quarter turns and mirrors"
        what = f"exact under {moves} at {_size(self.input_size)}"
        if self.exact:
            lines.append(what)
        else:
            breaking, unknown = (sum(row.holds is holds for row in self.rows) for holds in (False, None))
            counts = f"{breaking} of {len(self.rows)} layers break it" + (f", {unknown} unknown" if unknown else "")
            nearest = " and ".join(map(_size, self.nearest_sizes)) or "none"
            lines.append(f"not {what}: {counts}; nearest exact sizes: {nearest}")
        if self.group is None:
            lines.append("this is about where the layers sample, not about their filters")
        return "\n".join(lines)


def _size(size: int | tuple[int, ...]) -> str:
    return " x ".join(map(str, size)) if isinstance(size, tuple) else str(size)


def exactness(model: nn.Module, input_size: int | Size, *, channels: int | Size | None = None) -> Exactness:
    """Reports where a network breaks its equivariance by sampling (Edixhoven et al. 2023, Eq. 3).

    A layer of kernel k, stride s, padding p and dilation d samples an input of size i symmetrically when

        (i + 2p − d(k − 1) − 1) mod s = 0.

    Otherwise the last pixels lie in no window, and those are the first ones of the mirrored input.

    Convolutions (ours, Conv2d, ConvTranspose2d), max and average pooling with or without ceil_mode, adaptive and global
    pooling (always symmetric), padding layers and upsampling by a whole number are known.  A module of another type
    that changes the size, one whose maps change size between its layers, and a Linear that takes pixels as features are
    reported as unknown; one that keeps the size is taken to treat all pixels alike.

    The report is about sampling alone: relaxed layers and ordinary filters break the symmetry by their weights.  Where
    it says exact, strict layers with algorithm="irrep", batch norm in eval mode, ReLU, max pooling, SpatialGlobalPool2d
    and coset max pooling are equivariant to the bit.

    Args:
        model: any module; a copy of it runs on a zero image, by shapes alone where PyTorch can.
        input_size: H = W, or (H, W), in pixels.
        channels: C of the input, or (C, |P|) for a feature map; without it, what the first convolution takes.

    Returns:
        Exactness with rows, exact and nearest_sizes; printed, it is a table.

    Raises:
        TypeError, ValueError: a wrong argument, or an input that the network does not take.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    square = not isinstance(input_size, (tuple, list))
    sizes = input_size if isinstance(input_size, (tuple, list)) else (input_size, input_size)
    if len(sizes) != 2:
        raise ValueError(f"input_size must be an int or a pair (H, W), got {input_size!r}")
    height, width = (check_positive("input_size", size) for size in sizes)

    trace = _Trace(model, channels)
    rows = trace.rows((height, width))
    nearest: tuple[int, ...] | tuple[Size, ...]
    if all(row.holds for row in rows):
        nearest = (height,) if square else ((height, width),)
    else:
        # Exactness repeats with the product of the strides met on the way, those of branches from one map counted once.
        strides: dict[tuple[int, ...], int] = {}
        for row in rows:
            strides[row.input_size] = max(*row.stride, strides.get(row.input_size, 1))
        period = math.prod(strides.values())
        if square:
            found = _nearest(height, period, lambda n: trace.is_exact((n, n), (0, 1)))
            nearest = tuple(n for n in found if n is not None)
        else:
            heights = _nearest(height, period, lambda n: trace.is_exact((n, width), (0,)))
            widths = _nearest(width, period, lambda n: trace.is_exact((height, n), (1,)))
            nearest = tuple((h, w) for h, w in zip(heights, widths) if h is not None and w is not None)
    return Exactness((height, width), trace.group, tuple(rows), nearest)


def _nearest(size: int, period: int, is_exact: Callable[[int], bool]) -> tuple[int | None, int | None]:
    """The nearest exact sizes not above `size` and not below it."""
    below = next((n for n in range(size, max(0, size - period), -1) if is_exact(n)), None)
    return below, below if below == size else next((n for n in range(size + 1, size + period + 1) if is_exact(n)), None)


class _Breaks(Exception):
    """Ends a run at the first layer that is not symmetric."""


class _Axis(NamedTuple):
    """How a layer samples rows or columns."""

    kernel: int = 1
    stride: int = 1
    padding: int = 0  # before the first pixel
    dilation: int = 1

    def remainder(self, size: int, output_size: int) -> int:
        """(i + 2p − d(k − 1) − 1) mod s, in a form that also holds for windows and padding beyond the last pixel."""
        return size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1 - self.stride * (output_size - 1)


def _axes(layer: nn.Module) -> tuple[_Axis, _Axis]:
    """The sampling of a layer that is known, for rows and columns."""
    if isinstance(layer, _PADDING):
        left, _, top, _ = layer.padding
        return _Axis(padding=top), _Axis(padding=left)
    if not _has_windows(layer):
        return _Axis(), _Axis()
    kernel: Any = layer.kernel_size
    dilation: Any = getattr(layer, "dilation", 1)
    stride = kernel if layer.stride is None else layer.stride
    padding = getattr(layer, "padding", 0)
    if isinstance(padding, str):  # Conv2d's "valid" and "same", which puts an odd pixel after the last one
        padding = (0, 0) if padding == "valid" else tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation))
    pairs = (value if isinstance(value, tuple) else (value, value) for value in (kernel, stride, padding, dilation))
    rows, columns = zip(*pairs)
    return _Axis(*rows), _Axis(*columns)


def _describe(layer: nn.Module, axes: tuple[_Axis, _Axis]) -> str:
    """The type, and those of k, s, p, d that differ from 1, 1, 0, 1."""
    parts = [type(layer).__name__]
    for letter, pair, default in zip("kspd", zip(*axes), _Axis()):
        if pair != (default, default):
            parts.append(f"{letter}={pair[0]}" if pair[0] == pair[1] else f"{letter}=({pair[0]}, {pair[1]})")
    return " ".join(parts)


def _maps(values: object) -> Iterator[Tensor]:
    """The images and feature maps among the arguments or results of a module."""
    if isinstance(values, Tensor) and values.dim() in (4, 5):
        yield values
    elif isinstance(values, dict):
        yield from _maps(tuple(values.values()))
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _maps(value)


def _pixels(map: Tensor) -> Size:
    return map.shape[-2], map.shape[-1]


def _leading(model: nn.Module) -> tuple[int, ...]:
    """What comes before H and W in the shape of the network's input, without the batch: its first convolution's."""
    convolutions = (m for m in model.modules() if hasattr(m, "in_channels") and hasattr(m, "kernel_size"))
    first: Any = next(convolutions, None)
    if first is None:
        return (1,)
    return (first.in_channels,) if getattr(first, "_lifting", True) else (first.in_channels, first.group.order)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps PyTorch from logging an input that is too small as its own failure."""
    log = logging.getLogger(FakeTensorMode.__module__)
    was_disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = was_disabled


class _Call:
    """A module while it runs."""

    def __init__(self, name: str, module: nn.Module, within_known: bool, sizes: list[Size]):
        self.name, self.module, self.sizes = name, module, set(sizes)  # sizes: of what it got and its layers made
        self.input_size: tuple[int, ...] = sizes[0] if sizes else ()
        self.known = within_known or _is_known(module)


class _Trace:
    """Runs a copy of a network and notes what its layers do to the sizes."""

    def __init__(self, model: nn.Module, channels: int | Size | None):
        self.model = model
        groups = (getattr(module, "group", None) for module in model.modules())
        self.group = next((group for group in groups if isinstance(group, PointGroup)), None)
        group = self.group or PointGroup("D4")
        self.quarter_turns = group.has_quarter_turn
        # The axes that some element reverses or exchanges.
        self.moved = [axis for axis in (0, 1) if any(m[axis][axis] != 1 for m in group.matrices.tolist())]
        leading = _leading(model) if channels is None else channels if isinstance(channels, tuple) else (channels,)
        self.leading = tuple(check_positive("channels", n) for n in leading)
        first = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        self.like: dict[str, Any] = dict(dtype=first.dtype, device=first.device)

    def rows(self, size: Size) -> list[LayerExactness]:
        self._start(FakeTensorMode(allow_non_fake_inputs=True))
        try:
            return self._run(size)
        except Exception:  # some networks need numbers, not shapes alone: sampled elements, ops without a fake
            self._start(None)
        try:
            return self._run(size)
        except Exception as error:
            raise ValueError(f"model does not take an input of shape {(1, *self.leading, *size)}: {error}") from error

    def is_exact(self, size: Size, axes: tuple[int, ...] = (0, 1)) -> bool:
        """Whether every layer is symmetric along these axes for that input."""
        try:
            self._run(size, axes, stop=True)
        except Exception:  # a layer that is not symmetric, or too small an input
            return False
        return True

    def _start(self, mode: FakeTensorMode | None) -> None:
        self.mode, self.copy = mode, copy.deepcopy(self.model).eval()
        for name, module in self.copy.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True)
            module.register_forward_hook(lambda m, inputs, result: self._leave(result))

    def _run(self, size: Size, axes: tuple[int, ...] = (0, 1), stop: bool = False) -> list[LayerExactness]:
        self.judged, self.stop = [axis for axis in axes if axis in self.moved], stop
        self.found: list[LayerExactness] = []
        self.calls: list[_Call] = []
        self.fields, self.pixels = 0, (1, 1)  # of the latest map
        with torch.no_grad(), _silent(), self.mode or contextlib.nullcontext():
            self.copy(torch.zeros(1, *self.leading, *size, **self.like))
        return self.found

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caller = self.calls[-1] if self.calls else None
        within_known = caller is not None and caller.known  # parametrizations, whose maps are weights
        call = _Call(name, module, within_known, [] if within_known else [_pixels(t) for t in _maps((args, kwargs))])
        if caller and not within_known:
            self._explain(caller, call.sizes)
        many = self.pixels != (1, 1) and isinstance(module, nn.Linear) and module.in_features > self.fields
        if many and not call.sizes:
            self._note(LayerExactness(name, "Linear of pixels", self.pixels, ()))
        self.calls.append(call)

    def _leave(self, result: object) -> None:
        call, maps = self.calls.pop(), list(_maps(result))
        caller = self.calls[-1] if self.calls else None
        if caller and caller.known:
            return
        if call.known and maps:
            self._note(self._judge(call, _pixels(maps[0])))
        elif not call.known:
            self._explain(call, {_pixels(t) for t in maps})
        for t in maps:
            self.fields, self.pixels = t.shape[1:-2].numel(), _pixels(t)
            if caller:
                caller.sizes.add(self.pixels)

    def _explain(self, call: _Call, sizes: set[Size]) -> None:
        """Notes the sizes that `call` has made without a layer that the report knows."""
        for size in sizes - call.sizes:
            self._note(LayerExactness(call.name, type(call.module).__name__, call.input_size, size))
            call.sizes.add(size)

    def _judge(self, call: _Call, output: Size) -> LayerExactness:
        layer, axes, sizes = call.module, _axes(call.module), (call.input_size, output)
        transposed = getattr(layer, "transposed", hasattr(layer, "output_padding"))  # PyTorch's say so, ours show it
        stride = (1, 1) if transposed else (axes[0].stride, axes[1].stride)
        row = LayerExactness(call.name, _describe(layer, axes), *sizes, stride)
        if _has_windows(layer) or isinstance(layer, _PADDING):
            # A transposed convolution is the same with input and output exchanged.
            before, after = (output, call.input_size) if transposed else sizes
            remainder = (axes[0].remainder(before[0], after[0]), axes[1].remainder(before[1], after[1]))
        elif _upsamples(layer) and any(o % i for i, o in zip(*sizes)):
            return row
        else:
            remainder = (0, 0)
        (height, width), (rows, columns) = sizes
        even = axes[0] == axes[1] and (rows == columns or height != width)
        holds = all(remainder[axis] == 0 for axis in self.judged) and (even or not self.quarter_turns)
        return row._replace(remainder=remainder, holds=holds)

    def _note(self, row: LayerExactness) -> None:
        self.found.append(row)
        if self.stop and not row.holds:
            raise _Breaks
