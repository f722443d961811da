"""What the launches of the Triton kernels share: the tables of a group, memory formats, geometry, lists of taps."""

from __future__ import annotations

import contextlib
import functools
from typing import NamedTuple

import torch
from torch import Tensor

from ..groups import as_group
from ..irrep_tables import fourier_table


class Axis(NamedTuple):
    """One direction of space.  Output pixel p reads pixel (stride·p + dilation·tap − padding) / spread of the input, where that
    is a whole number; a spread above 1 belongs to the dgrad of a strided convolution."""

    input: int
    output: int
    stride: int
    padding: int
    dilation: int
    spread: int = 1


def forward_axes(size: int, input_size, stride, padding, dilation) -> tuple[Axis, Axis]:
    """Rows and columns of a convolution with size × size taps."""
    rows, columns = (
        Axis(n, (n + 2 * p - d * (size - 1) - 1) // s + 1, s, p, d) for n, s, p, d in zip(input_size, stride, padding, dilation)
    )
    return rows, columns


def adjoint_axes(size: int, axes: tuple[Axis, Axis]) -> tuple[Axis, Axis]:
    """Those of its dgrad, read as an fprop."""
    rows, columns = (Axis(a.output, a.input, 1, a.dilation * (size - 1) - a.padding, a.dilation, a.stride) for a in axes)
    return rows, columns


@functools.cache
def _orbits_of_phases(group: str, size: int, lifting: bool, axes: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, ...], ...]:
    """For each phase of the output pixels, the first taps of the orbits of which any element reads more than zeros; axes are
    (padding, dilation, spread) of each direction."""
    point_group = as_group(group)
    elements = range(point_group.order)
    (row_padding, row_dilation, row_spread), (column_padding, column_dilation, column_spread) = axes

    def reads(tap: int, row_phase: int, column_phase: int) -> bool:
        row, column = divmod(tap, size)
        row_at, column_at = row_phase + row_dilation * row - row_padding, column_phase + column_dilation * column - column_padding
        return row_at % row_spread == 0 and column_at % column_spread == 0

    firsts = point_group.tap_orbits(size) if lifting else range(size**2)
    return tuple(
        tuple(tap for tap in firsts if any(reads(point_group.moved_tap(g, tap, size), row, column) for g in elements))
        for row in range(row_spread)
        for column in range(column_spread)
    )


@functools.cache
def _packed(lists: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    words = range(-(-max(map(len, lists)) // 4) or 1)
    packed = [sum(tap << 16 * i for i, tap in enumerate(taps[4 * word : 4 * word + 4])) for taps in lists for word in (-1, *words)]
    packed[:: len(words) + 1] = map(len, lists)
    return (len(words) + 1, *packed)


def tap_lists(group: str, size: int, lifting: bool, axes: tuple[Axis, Axis]) -> tuple[int, ...] | None:
    """For each phase, how many taps count and then those, four in a number, behind the length of such a list, as tiles.py
    reads them; None where they are all the taps in order.  They are part of the kernel: a table on the GPU would have to be
    copied there on first use, which a CUDA graph cannot hold."""
    if not lifting and max(a.spread for a in axes) == 1:
        return None
    return _packed(_orbits_of_phases(group, size, lifting, tuple((a.padding, a.dilation, a.spread) for a in axes)))


@functools.cache
def group_tables(group: str) -> dict:
    """The group as the kernels' constexpr arguments."""
    point_group, table = as_group(group), fourier_table(group)
    return {
        "MATRICES": tuple(map(tuple, point_group.matrices.flatten(1).tolist())),
        "PRODUCT": tuple(map(tuple, point_group.product.tolist())),
        "PRODUCT_ROWS": tuple(sum(h << 4 * w for w, h in enumerate(row)) for row in point_group.product.tolist()),
        "INVERSE": tuple(point_group.inverse.tolist()),
        "BUTTERFLIES": table.butterflies,
        "PRODUCTS": table.products,
        "SCALES": table.inverse_scales,
    }


def chosen(tables: dict, *names: str) -> dict:
    return {name: tables[name] for name in names}


def map_strides(map: Tensor) -> tuple[int, int, int, int, int]:
    """(batch, field, element, row, column), in numbers; an image has element stride 0."""
    element = map.stride(2) if map.dim() == 5 else 0
    return (map.stride(0), map.stride(1), element, map.stride(-2), map.stride(-1))


def contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def is_wide(*maps: Tensor) -> bool:
    """Whether an offset can pass 2³¹ − 1, which a kernel's 32-bit numbers cannot."""
    return any(sum((n - 1) * abs(s) for n, s in zip(map.shape, map.stride())) >= 2**31 - 2**20 for map in maps)


def precision() -> str:
    """Of a float32 product: exact, or on the tensor cores where PyTorch may."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


@functools.cache
def _is_hopper(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device)[0] >= 9


def is_hopper(tensor: Tensor) -> bool:
    """Whether the tensor's GPU is of sm_90 or newer."""
    return tensor.is_cuda and _is_hopper(tensor.device)


def on_device(tensor: Tensor):
    """Launches on the tensor's device, and its current stream."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
