"""The fused dense form: one kernel rotates the filter bank, forms the relaxed sum and correlates, so that the expanded filter
is never in device memory.

    y[o, u, p] = Σ_c Σ_v Σ_t F[o, u, c, v, t] · x[c, v, p + t]        F[o, u, c, v, t] = Σ_l w_l · ψ[l, o, c, u⁻¹v, u⁻¹t]

dgrad is the same kernel with u and v, o and c in each other's place.  It serves relaxed layers with many filter banks, for
which the irrep algorithm has L times a strict layer's products.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..groups import as_group
from ..memory_format import empty_map_like, lies_in_rows
from . import configurations
from .launch import (
    Axis,
    adjoint_axes,
    contiguous,
    forward_axes,
    group_tables,
    is_wide,
    map_strides,
    on_device,
    precision,
    tap_lists,
)
from .tiles import listed_count, listed_tap, listed_taps, load_map, moved_tap, replaced, widened


@triton.jit
def _source(
    tap, U: tl.constexpr, V: tl.constexpr, SIZE: tl.constexpr, LIFTING: tl.constexpr, MATRICES: tl.constexpr,
    INVERSE: tl.constexpr, PRODUCT: tl.constexpr,
):  # fmt: skip
    """The position (u⁻¹v, u⁻¹t) in a filter bank's [|P|, SIZE, SIZE]."""
    BACK: tl.constexpr = INVERSE[U]
    ELEMENTS: tl.constexpr = PRODUCT[BACK]
    row, column = moved_tap(tap, MATRICES, BACK, SIZE)
    position = row * SIZE + column
    if not LIFTING:
        position += ELEMENTS[V] * SIZE * SIZE
    return position


@triton.jit
def fused_fprop_kernel(
    x, activated, weight, relaxed_weight, bias, y,
    batch, in_fields, out_fields, banks, blocks,
    x_batch, x_field, x_element, x_row, x_column, y_batch, y_field, y_element, y_row, y_column,
    rows_in, columns_in, rows, columns, row_stride, column_stride, row_padding, column_padding, row_dilation, column_dilation,
    MATRICES: tl.constexpr, INVERSE: tl.constexpr, PRODUCT: tl.constexpr, SIZE: tl.constexpr, LIFTING: tl.constexpr,
    ADJOINT: tl.constexpr, TAPS: tl.constexpr, ROW_SPREAD: tl.constexpr, COLUMN_SPREAD: tl.constexpr, MASKED: tl.constexpr,
    RELAXED: tl.constexpr, RELAX_INPUT: tl.constexpr, HAS_BIAS: tl.constexpr, RELU: tl.constexpr,
    X_FIELDS_LAST: tl.constexpr, Y_FIELDS_LAST: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    PIXELS: tl.constexpr, OUT_FIELDS: tl.constexpr, IN_FIELDS: tl.constexpr,
):  # fmt: skip
    """Fields are those of one of `blocks` blocks; weight is ψ [banks, blocks·O, C, |P|, SIZE, SIZE].  ADJOINT: x is dy and y is
    dx.  A spread above 1 and TAPS as in irrep_fprop_kernel."""
    ORDER: tl.constexpr = len(MATRICES)
    IN_ELEMENTS: tl.constexpr = 1 if LIFTING and not ADJOINT else ORDER
    OUT_ELEMENTS: tl.constexpr = 1 if LIFTING and ADJOINT else ORDER
    STRIDE: tl.constexpr = SIZE * SIZE if LIFTING else ORDER * SIZE * SIZE
    PHASES: tl.constexpr = ROW_SPREAD * COLUMN_SPREAD
    block = widened(tl.program_id(2) // PHASES, WIDE)
    phase = tl.program_id(2) % PHASES
    row_phase = phase // COLUMN_SPREAD
    column_phase = phase % COLUMN_SPREAD

    rows_of_phase = (rows + ROW_SPREAD - 1) // ROW_SPREAD
    columns_of_phase = (columns + COLUMN_SPREAD - 1) // COLUMN_SPREAD
    pixel = widened(tl.program_id(0), WIDE) * PIXELS + tl.arange(0, PIXELS)
    image = pixel // (rows_of_phase * columns_of_phase)
    row = pixel // columns_of_phase % rows_of_phase
    column = pixel % columns_of_phase
    plane = widened(tl.arange(0, OUT_ELEMENTS * OUT_FIELDS), WIDE)  # of the result: element and field
    element = plane // OUT_FIELDS
    out_field = tl.program_id(1) * OUT_FIELDS + plane % OUT_FIELDS
    lane = widened(tl.arange(0, IN_FIELDS), WIDE)
    x_image = image * x_batch + block * in_fields * x_field
    in_stride = out_fields * STRIDE if ADJOINT else STRIDE
    out_stride = STRIDE if ADJOINT else in_fields * STRIDE
    steps_of_tap = (in_fields + IN_FIELDS - 1) // IN_FIELDS
    if TAPS is None:
        count = SIZE * SIZE
    else:
        count = listed_count(TAPS, phase)
        words = listed_taps(TAPS, phase)

    sums = tl.zeros((PIXELS, OUT_ELEMENTS * OUT_FIELDS), tl.float32)
    for step in range(count * steps_of_tap):
        tap = step // steps_of_tap
        if TAPS is not None:
            tap = listed_tap(words, tap)
        field = step % steps_of_tap * IN_FIELDS + lane
        row_at = tap // SIZE * row_dilation - row_padding
        column_at = tap % SIZE * column_dilation - column_padding
        if PHASES > 1:
            # Made positive first: a kernel's division rounds towards zero.
            row_shift = tl.maximum(row_padding, 0)
            column_shift = tl.maximum(column_padding, 0)
            row_at = (row_at + row_phase + ROW_SPREAD * row_shift) // ROW_SPREAD - row_shift
            column_at = (column_at + column_phase + COLUMN_SPREAD * column_shift) // COLUMN_SPREAD - column_shift
        mask = (field < in_fields)[:, None] & (out_field < out_fields)[None, :]
        x_plane = x_image
        for v in tl.static_range(IN_ELEMENTS):
            tile = load_map(
                x, activated, x_plane, row * row_stride + row_at, column * column_stride + column_at,
                image < batch, field, in_fields, rows_in, columns_in, x_row, x_column, x_field, MASKED, X_FIELDS_LAST,
            )  # fmt: skip
            x_plane += x_element
            position = element
            for u in tl.static_range(OUT_ELEMENTS):
                if ADJOINT:
                    source = _source(SIZE * SIZE - 1 - tap, v, u, SIZE, LIFTING, MATRICES, INVERSE, PRODUCT)
                else:
                    source = _source(tap, u, v, SIZE, LIFTING, MATRICES, INVERSE, PRODUCT)
                position = tl.where(element == u, source, position)
            offsets = field[:, None] * in_stride + (out_field * out_stride + position)[None, :]
            filter = tl.zeros((IN_FIELDS, OUT_ELEMENTS * OUT_FIELDS), tl.float32)
            for bank in range(banks):
                at = (bank * blocks + block) * in_fields * out_fields * STRIDE
                taps_of_bank = tl.load(weight + at + offsets, mask=mask, other=0.0).to(tl.float32)
                if RELAXED:
                    # w_l of the convolution's input element if RELAX_INPUT, else of its output element.
                    if RELAX_INPUT == ADJOINT:
                        taps_of_bank *= tl.load(relaxed_weight + bank * ORDER + element).to(tl.float32)[None, :]
                    else:
                        taps_of_bank *= tl.load(relaxed_weight + bank * ORDER + v).to(tl.float32)
                filter += taps_of_bank
            sums = tl.dot(tile, filter.to(x.dtype.element_ty), sums, input_precision=PRECISION)

    if HAS_BIAS:
        sums += tl.load(bias + block * out_fields + out_field, mask=out_field < out_fields, other=0.0).to(tl.float32)[None, :]
    if RELU:
        sums = tl.where(sums < 0.0, 0.0, sums)
    y_row_at = row * ROW_SPREAD + row_phase
    y_column_at = column * COLUMN_SPREAD + column_phase
    y_at = image * y_batch + block * out_fields * y_field + y_row_at * y_row + y_column_at * y_column
    y_plane = element * y_element + out_field * y_field
    inside = (image < batch) & (y_row_at < rows) & (y_column_at < columns)
    tile = sums.to(y.dtype.element_ty)
    if Y_FIELDS_LAST:
        tl.store(y + y_at[:, None] + y_plane[None, :], tile, mask=inside[:, None] & (out_field < out_fields)[None, :])
    else:
        tl.store(y + y_at[None, :] + y_plane[:, None], tl.trans(tile), mask=inside[None, :] & (out_field < out_fields)[:, None])


@triton.jit
def _multiplied(U: tl.constexpr, element, PRODUCT: tl.constexpr):
    """The index of u·w."""
    ELEMENTS: tl.constexpr = PRODUCT[U]
    found = 0
    for w in tl.static_range(len(PRODUCT)):
        found += ELEMENTS[w] * (element == w).to(tl.int32)
    return found


@triton.jit
def fused_wgrad_kernel(
    x, dy, activated, relaxed_weight, shares,
    batch, in_fields, out_fields, banks, blocks, pixels_per_share,
    x_batch, x_field, x_element, x_row, x_column, y_batch, y_field, y_element, y_row, y_column,
    rows_in, columns_in, rows, columns, row_stride, column_stride, row_padding, column_padding, row_dilation, column_dilation,
    MATRICES: tl.constexpr, PRODUCT: tl.constexpr, SIZE: tl.constexpr, LIFTING: tl.constexpr, MASKED: tl.constexpr,
    RELAXED: tl.constexpr, RELAX_INPUT: tl.constexpr, X_FIELDS_LAST: tl.constexpr, Y_FIELDS_LAST: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr, PIXELS: tl.constexpr, OUT_FIELDS: tl.constexpr, IN_FIELDS: tl.constexpr,
):  # fmt: skip
    """dψ[l, o, c, w, s] = Σ_u w_l Σ_pixels dy[o, u, p] · x[c, u·w, p + u·s].  Fields are those of one of `blocks` blocks; shares
    is [share, banks, blocks·O, C, |P|, SIZE, SIZE] in float32."""
    ORDER: tl.constexpr = len(MATRICES)
    STRIDE: tl.constexpr = SIZE * SIZE if LIFTING else ORDER * SIZE * SIZE
    out_tiles = tl.cdiv(out_fields, OUT_FIELDS)
    in_field = widened(tl.program_id(0) // out_tiles * IN_FIELDS + tl.arange(0, IN_FIELDS), WIDE)
    out_field = widened(tl.program_id(0) % out_tiles * OUT_FIELDS + tl.arange(0, OUT_FIELDS), WIDE)
    position = widened(tl.program_id(1), WIDE)
    element = position // (SIZE * SIZE)
    tap = position % (SIZE * SIZE)
    block = widened(tl.program_id(2) % blocks, WIDE)
    share = widened(tl.program_id(2) // blocks, WIDE)

    sums = ()  # one for each u; a strict layer needs their sum alone
    for u in tl.static_range(ORDER if RELAXED else 1):
        sums = sums + (tl.zeros((IN_FIELDS, OUT_FIELDS), tl.float32),)
    for start in range(0, pixels_per_share, PIXELS):
        pixel = share * pixels_per_share + start + tl.arange(0, PIXELS)
        image = pixel // (rows * columns)
        row = pixel // columns % rows
        column = pixel % columns
        x_image = image * x_batch + block * in_fields * x_field
        y_plane = image * y_batch + block * out_fields * y_field
        for u in tl.static_range(ORDER):
            moved_row, moved_column = moved_tap(tap, MATRICES, u, SIZE)
            x_plane = 0 if LIFTING else _multiplied(u, element, PRODUCT) * x_element
            x_tile = load_map(
                x, x, x_image + x_plane, row * row_stride + moved_row * row_dilation - row_padding,
                column * column_stride + moved_column * column_dilation - column_padding, image < batch, in_field, in_fields,
                rows_in, columns_in, x_row, x_column, x_field, False, X_FIELDS_LAST,
            )  # fmt: skip
            y_tile = load_map(
                dy, activated, y_plane, row, column, image < batch, out_field, out_fields,
                rows, columns, y_row, y_column, y_field, MASKED, Y_FIELDS_LAST,
            )  # fmt: skip
            y_plane += y_element
            if RELAXED:
                sums = replaced(sums, u, tl.dot(tl.trans(x_tile), y_tile, sums[u], input_precision=PRECISION))
            else:
                sums = (tl.dot(tl.trans(x_tile), y_tile, sums[0], input_precision=PRECISION),)

    pairs = out_field[None, :].to(tl.int64) * in_fields + in_field[:, None]
    mask = (in_field < in_fields)[:, None] & (out_field < out_fields)[None, :]
    for bank in range(banks):
        total = sums[0]
        if RELAXED:
            total = tl.zeros((IN_FIELDS, OUT_FIELDS), tl.float32)
            for u in tl.static_range(ORDER):
                at_element = _multiplied(u, element, PRODUCT) if RELAX_INPUT else u
                total += sums[u] * tl.load(relaxed_weight + bank * ORDER + at_element).to(tl.float32)
        at = ((share * banks + bank).to(tl.int64) * blocks + block) * in_fields * out_fields
        tl.store(shares + (at + pairs) * STRIDE + position, total, mask=mask)


def _launch_fprop(
    x: Tensor, activated: Tensor | None, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, y: Tensor,
    axes: tuple[Axis, Axis], *, group: str, in_fields: int, out_fields: int, blocks: int, lifting: bool, adjoint: bool,
    relax_on: str, relu: bool,
) -> None:  # fmt: skip
    rows, columns = axes
    phases, size = rows.spread * columns.spread, weight.shape[-1]
    pixels = x.shape[0] * -(-rows.output // rows.spread) * -(-columns.output // columns.spread)
    if pixels == 0:
        return
    tables = group_tables(group)
    # The taps of the expanded filter are moved by no element.
    taps = tap_lists("C1", size, False, axes)
    tile = configurations.fused_fprop(len(tables["MATRICES"]), in_fields, out_fields, x.element_size() * 8)
    with on_device(x):
        fused_fprop_kernel[triton.cdiv(pixels, tile.pixels), triton.cdiv(out_fields, tile.out_fields), blocks * phases](
            x, activated, weight.contiguous(), contiguous(relaxed_weight), contiguous(bias), y,
            x.shape[0], in_fields, out_fields, 1 if relaxed_weight is None else relaxed_weight.shape[0], blocks,
            *map_strides(x), *map_strides(y),
            rows.input, columns.input, rows.output, columns.output, rows.stride, columns.stride,
            rows.padding, columns.padding, rows.dilation, columns.dilation,
            MATRICES=tables["MATRICES"], INVERSE=tables["INVERSE"], PRODUCT=tables["PRODUCT"], SIZE=size, LIFTING=lifting,
            ADJOINT=adjoint, TAPS=taps, ROW_SPREAD=rows.spread, COLUMN_SPREAD=columns.spread, MASKED=activated is not None,
            RELAXED=relaxed_weight is not None, RELAX_INPUT=relax_on == "input", HAS_BIAS=bias is not None, RELU=relu,
            X_FIELDS_LAST=not lies_in_rows(x), Y_FIELDS_LAST=not lies_in_rows(y), WIDE=is_wide(x, y), PRECISION=precision(),
            PIXELS=tile.pixels, OUT_FIELDS=tile.out_fields, IN_FIELDS=tile.in_fields,
            num_warps=tile.num_warps, num_stages=tile.num_stages, maxnreg=tile.registers,
        )  # fmt: skip


def fused_fprop(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, transformed_weight: None,
    group: str, relax_on: str, stride: list[int], padding: list[int], dilation: list[int], groups: int, relu: bool,
) -> Tensor:  # fmt: skip
    """As ops.fprop, on a GPU."""
    bank_axis = int(relaxed_weight is not None)
    axes = forward_axes(weight.shape[-1], x.shape[-2:], stride, padding, dilation)
    y = empty_map_like(x, weight.shape[bank_axis], as_group(group).order, axes[0].output, axes[1].output)
    _launch_fprop(
        x, None, weight, relaxed_weight, bias, y, axes, group=group, in_fields=weight.shape[bank_axis + 1],
        out_fields=weight.shape[bank_axis] // groups, blocks=groups, lifting=x.dim() == 4, adjoint=False, relax_on=relax_on,
        relu=relu,
    )  # fmt: skip
    return y


def fused_dgrad(
    dy: Tensor, weight: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, group: str, relax_on: str,
    input_size: list[int], stride: list[int], padding: list[int], dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """As ops.dgrad, on a GPU."""
    bank_axis = int(relaxed_weight is not None)
    lifting = weight.dim() == 4 + bank_axis
    if activated is not None and activated.stride() != dy.stride():
        dy, activated = torch.ops.aten.threshold_backward(dy, activated, 0), None
    axes = adjoint_axes(weight.shape[-1], forward_axes(weight.shape[-1], input_size, stride, padding, dilation))
    dx = empty_map_like(dy, weight.shape[bank_axis + 1] * groups, 1 if lifting else dy.shape[2], *input_size)
    _launch_fprop(
        dy, activated, weight, relaxed_weight, None, dx, axes, group=group, in_fields=weight.shape[bank_axis] // groups,
        out_fields=weight.shape[bank_axis + 1], blocks=groups, lifting=lifting, adjoint=True, relax_on=relax_on, relu=False,
    )  # fmt: skip
    return dx.squeeze(2) if lifting else dx


def fused_wgrad(
    x: Tensor, dy: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, group: str, relax_on: str,
    kernel_size: int, stride: list[int], padding: list[int], dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """As ops.wgrad, on a GPU."""
    if activated is not None and activated.stride() != dy.stride():
        dy, activated = torch.ops.aten.threshold_backward(dy, activated, 0), None
    lifting, banks = x.dim() == 4, () if relaxed_weight is None else relaxed_weight.shape[:1]
    in_fields, out_fields = x.shape[1] // groups, dy.shape[1] // groups
    rows, columns = forward_axes(kernel_size, x.shape[-2:], stride, padding, dilation)
    tables = group_tables(group)
    tile = configurations.fused_wgrad(len(tables["MATRICES"]), in_fields, out_fields, x.element_size() * 8)
    tiles = triton.cdiv(in_fields, tile.in_fields) * triton.cdiv(out_fields, tile.out_fields)
    positions = kernel_size**2 * (1 if lifting else len(tables["MATRICES"]))
    pixels = x.shape[0] * rows.output * columns.output
    count, pixels_per_share = configurations.shares(pixels, tile.pixels, tiles * positions * groups)
    sizes = (*banks, dy.shape[1], in_fields, *x.shape[2:-2], kernel_size, kernel_size)
    shares = x.new_empty((count, *sizes), dtype=torch.float32)
    with on_device(x):
        fused_wgrad_kernel[tiles, positions, groups * count](
            x, dy, activated, contiguous(relaxed_weight), shares,
            x.shape[0], in_fields, out_fields, banks[0] if banks else 1, groups, pixels_per_share,
            *map_strides(x), *map_strides(dy),
            rows.input, columns.input, rows.output, columns.output, rows.stride, columns.stride,
            rows.padding, columns.padding, rows.dilation, columns.dilation,
            MATRICES=tables["MATRICES"], PRODUCT=tables["PRODUCT"], SIZE=kernel_size, LIFTING=lifting,
            MASKED=activated is not None, RELAXED=bool(banks), RELAX_INPUT=relax_on == "input",
            X_FIELDS_LAST=not lies_in_rows(x), Y_FIELDS_LAST=not lies_in_rows(dy), WIDE=is_wide(x, dy), PRECISION=precision(),
            PIXELS=tile.pixels, OUT_FIELDS=tile.out_fields, IN_FIELDS=tile.in_fields,
            num_warps=tile.num_warps, num_stages=tile.num_stages, maxnreg=tile.registers,
        )  # fmt: skip
    return shares.sum(0).to(x.dtype)
