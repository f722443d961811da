"""irrep fprop, and dgrad as an fprop of the adjoint filter.

    X_s[g] = x[c, g, stride·p + g·s]        Ψ_s[g] = ψ[o, c, g, g·s]        ŷ(ρ) = Σ_c Σ_s X̂_s(ρ) Ψ̂_s(ρ)ᵀ

One program makes a tile of pixels × output fields of all |P| elements: it loads the |P| shifted tiles of x, transforms them
in registers, multiplies each plane on the tensor cores, and transforms back before it writes.  Nothing but x, ψ and y is in
device memory.
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
    chosen,
    contiguous,
    forward_axes,
    group_tables,
    is_hopper,
    is_wide,
    map_strides,
    on_device,
    precision,
    tap_lists,
)
from .tiles import (
    fourier,
    inverse_fourier,
    listed_count,
    listed_tap,
    listed_taps,
    load_filter,
    load_map,
    moved_tap,
    replaced,
    widened,
)


@triton.jit
def _add_product(sums, x, filter, PRODUCTS: tl.constexpr, TERM: tl.constexpr, PRECISION: tl.constexpr):
    PRODUCT: tl.constexpr = PRODUCTS[TERM]  # (plane of ŷ, of X̂, of Ψ̂, negated)
    tile = x[PRODUCT[1]]
    if PRODUCT[3]:
        tile = -tile
    product = tl.dot(tile, filter[PRODUCT[2]], sums[PRODUCT[0]], input_precision=PRECISION)
    return replaced(sums, PRODUCT[0], product)


@triton.jit
def _multiply(sums, x, filter, PRODUCTS: tl.constexpr, PRECISION: tl.constexpr):
    """The planes of ŷ plus the products of those of X̂ and Ψ̂, in the order of the table."""
    for term in tl.static_range(len(PRODUCTS)):
        sums = _add_product(sums, x, filter, PRODUCTS, term, PRECISION)
    return sums


@triton.jit
def irrep_fprop_kernel(
    x, activated, weight, relaxed_weight, bias, y,
    batch, in_fields, out_fields, banks, blocks,
    x_batch, x_field, x_element, x_row, x_column, y_batch, y_field, y_element, y_row, y_column,
    rows_in, columns_in, rows, columns, row_stride, column_stride, row_padding, column_padding, row_dilation, column_dilation,
    MATRICES: tl.constexpr, INVERSE: tl.constexpr, BUTTERFLIES: tl.constexpr, PRODUCTS: tl.constexpr, SCALES: tl.constexpr,
    SIZE: tl.constexpr, ORBITS: tl.constexpr, LIFTING: tl.constexpr, ADJOINT: tl.constexpr, TRANSFORMED: tl.constexpr,
    TAPS: tl.constexpr, ROW_SPREAD: tl.constexpr, COLUMN_SPREAD: tl.constexpr, MASKED: tl.constexpr, SCALE_INPUT: tl.constexpr,
    SCALE_OUTPUT: tl.constexpr, HAS_BIAS: tl.constexpr, RELU: tl.constexpr, X_FIELDS_LAST: tl.constexpr,
    Y_FIELDS_LAST: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    PIXELS: tl.constexpr, OUT_FIELDS: tl.constexpr, IN_FIELDS: tl.constexpr,
):  # fmt: skip
    """Fields are those of one of `blocks` blocks; weight is ψ [banks, blocks·O, C, |P|, SIZE, SIZE], or what
    irrep_transform_weight_kernel makes of it.  A spread above 1 is the stride of the convolution whose dgrad this is: between
    two pixels of x lie spread − 1 zeros, and the output pixels spread·p + phase have taps of their own, listed in TAPS
    (launch.tap_lists; None: all in order).
    """
    ORDER: tl.constexpr = len(MATRICES)
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
    out_field = widened(tl.program_id(1) * OUT_FIELDS + tl.arange(0, OUT_FIELDS), WIDE)
    lane = widened(tl.arange(0, IN_FIELDS), WIDE)
    x_image = image * x_batch + block * in_fields * x_field
    x_row_at = row * row_stride
    x_column_at = column * column_stride

    IN_STRIDE: tl.constexpr = SIZE * SIZE if LIFTING else ORDER * SIZE * SIZE
    if TAPS is None:
        count = SIZE * SIZE
    else:
        count = listed_count(TAPS, phase)
        words = listed_taps(TAPS, phase)
    steps_of_tap = (in_fields + IN_FIELDS - 1) // IN_FIELDS

    sums = ()
    for u in tl.static_range(ORDER):
        sums = sums + (tl.zeros((PIXELS, OUT_FIELDS), tl.float32),)
    planes = sums
    for bank in range(banks):
        for step in range(count * steps_of_tap):
            orbit = step // steps_of_tap
            tap = orbit
            if TAPS is not None:
                tap = listed_tap(words, orbit)
                if not LIFTING:
                    orbit = tap
            field = step % steps_of_tap * IN_FIELDS + lane
            tiles = ()
            x_plane = x_image
            for g in tl.static_range(ORDER):
                moved_row, moved_column = moved_tap(tap, MATRICES, g, SIZE)
                row_at = moved_row * row_dilation - row_padding
                column_at = moved_column * column_dilation - column_padding
                reads = image < batch
                if PHASES > 1:
                    # Made positive first: a kernel's division rounds towards zero.
                    row_shift = tl.maximum(row_padding, 0)
                    column_shift = tl.maximum(column_padding, 0)
                    row_at += row_phase + ROW_SPREAD * row_shift
                    column_at += column_phase + COLUMN_SPREAD * column_shift
                    reads = reads & (row_at % ROW_SPREAD == 0) & (column_at % COLUMN_SPREAD == 0)
                    row_at = row_at // ROW_SPREAD - row_shift
                    column_at = column_at // COLUMN_SPREAD - column_shift
                tile = load_map(
                    x, activated, x_plane, x_row_at + row_at, x_column_at + column_at, reads, field, in_fields, rows_in,
                    columns_in, x_row, x_column, x_field, MASKED, X_FIELDS_LAST,
                )  # fmt: skip
                x_plane += x_element
                if SCALE_INPUT:
                    tile = tile * tl.load(relaxed_weight + bank * ORDER + g)
                tiles = tiles + (tile,)
            if TRANSFORMED:
                # [bank, block, orbit, plane, in field, out field]
                at = ((bank * blocks + block) * ORBITS + orbit) * ORDER * in_fields
                offsets = field[:, None] * out_fields + out_field[None, :]
                mask = (field < in_fields)[:, None] & (out_field < out_fields)[None, :]
                filter = ()
                for g in tl.static_range(ORDER):
                    filter = filter + (tl.load(weight + (at + g * in_fields) * out_fields + offsets, mask=mask, other=0.0),)
            else:
                in_stride = out_fields * IN_STRIDE if ADJOINT else IN_STRIDE
                out_stride = IN_STRIDE if ADJOINT else in_fields * IN_STRIDE
                at = (bank * blocks + block) * in_fields * out_fields * IN_STRIDE
                mask = (field < in_fields)[:, None] & (out_field < out_fields)[None, :]
                exact = load_filter(
                    weight + at, tap, field[:, None] * in_stride, out_field[None, :] * out_stride, mask,
                    LIFTING, ADJOINT, SIZE, MATRICES, INVERSE, BUTTERFLIES,
                )  # fmt: skip
                filter = ()
                for g in tl.static_range(ORDER):
                    filter = filter + (exact[g].to(x.dtype.element_ty),)
            planes = _multiply(planes, fourier(tiles, BUTTERFLIES), filter, PRODUCTS, PRECISION)
        if SCALE_OUTPUT:
            elements = inverse_fourier(planes, BUTTERFLIES, SCALES)
            total = ()
            for u in tl.static_range(ORDER):
                total = total + (sums[u] + elements[u] * tl.load(relaxed_weight + bank * ORDER + u).to(tl.float32),)
            sums = total
            cleared = ()
            for u in tl.static_range(ORDER):
                cleared = cleared + (tl.zeros((PIXELS, OUT_FIELDS), tl.float32),)
            planes = cleared
    if not SCALE_OUTPUT:
        sums = inverse_fourier(planes, BUTTERFLIES, SCALES)

    y_at = image * y_batch + block * out_fields * y_field
    y_row_at = row * ROW_SPREAD + row_phase
    y_column_at = column * COLUMN_SPREAD + column_phase
    y_at += y_row_at * y_row + y_column_at * y_column
    inside = (image < batch) & (y_row_at < rows) & (y_column_at < columns)
    for u in tl.static_range(ORDER):
        tile = sums[u]
        if HAS_BIAS:
            tile += tl.load(bias + block * out_fields + out_field, mask=out_field < out_fields, other=0.0).to(tl.float32)[None, :]
        if RELU:
            tile = tl.where(tile < 0.0, 0.0, tile)
        tile = tile.to(y.dtype.element_ty)
        if Y_FIELDS_LAST:
            offsets = y_at[:, None] + out_field[None, :] * y_field
            tl.store(y + offsets, tile, mask=inside[:, None] & (out_field < out_fields)[None, :])
        else:
            offsets = y_at[None, :] + out_field[:, None] * y_field
            tl.store(y + offsets, tl.trans(tile), mask=inside[None, :] & (out_field < out_fields)[:, None])
        y_at += y_element


@triton.jit
def irrep_transform_weight_kernel(
    weight, transformed, in_fields, out_fields,
    MATRICES: tl.constexpr, INVERSE: tl.constexpr, BUTTERFLIES: tl.constexpr, SIZE: tl.constexpr, LIFTING: tl.constexpr,
    ADJOINT: tl.constexpr, TAPS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """ψ [banks · blocks, O, C, |P|, SIZE, SIZE] -> Ψ̂ [banks · blocks, orbit, plane, in field, out field], rounded once to the
    type of `transformed`; what the kernel above makes of ψ itself."""
    ORDER: tl.constexpr = len(MATRICES)
    IN_STRIDE: tl.constexpr = SIZE * SIZE if LIFTING else ORDER * SIZE * SIZE
    orbit = tl.program_id(1)
    block = tl.program_id(2).to(tl.int64)
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    pairs = in_fields * out_fields
    tap = orbit if TAPS is None else listed_tap(listed_taps(TAPS, 0), orbit)
    in_field = pair // out_fields
    out_field = pair % out_fields
    in_stride = out_fields * IN_STRIDE if ADJOINT else IN_STRIDE
    out_stride = IN_STRIDE if ADJOINT else in_fields * IN_STRIDE
    planes = load_filter(
        weight + block * pairs * IN_STRIDE, tap, in_field * in_stride, out_field * out_stride, pair < pairs,
        LIFTING, ADJOINT, SIZE, MATRICES, INVERSE, BUTTERFLIES,
    )  # fmt: skip
    for plane in tl.static_range(ORDER):
        at = ((block * tl.num_programs(1) + orbit) * ORDER + plane) * pairs
        tl.store(transformed + at + pair, planes[plane].to(transformed.dtype.element_ty), mask=pair < pairs)


def _transformed(
    weight: Tensor, group: str, size: int, blocks: int, in_fields: int, out_fields: int, lifting: bool, adjoint: bool
) -> Tensor:
    """Ψ̂ [banks · blocks, orbit, plane, in field, out field] of a contiguous filter bank."""
    firsts = as_group(group).tap_orbits(size) if lifting else range(size**2)
    transformed = weight.new_empty((blocks, len(firsts), as_group(group).order, in_fields, out_fields))
    taps = tap_lists(group, size, lifting, forward_axes(size, (size, size), (1, 1), (0, 0), (1, 1)))
    tables = chosen(group_tables(group), "MATRICES", "INVERSE", "BUTTERFLIES")
    with on_device(weight):
        irrep_transform_weight_kernel[triton.cdiv(in_fields * out_fields, 128), len(firsts), blocks](
            weight, transformed, in_fields, out_fields,
            **tables, SIZE=size, LIFTING=lifting, ADJOINT=adjoint, TAPS=taps, PAIRS=128,
        )  # fmt: skip
    return transformed


def _launch(
    x: Tensor, activated: Tensor | None, weight: Tensor, transformed: Tensor | None, relaxed_weight: Tensor | None,
    bias: Tensor | None, y: Tensor, axes: tuple[Axis, Axis], *, group: str, size: int, in_fields: int, out_fields: int, blocks: int,
    lifting: bool, adjoint: bool, scale_input: bool, relu: bool,
) -> None:  # fmt: skip
    rows, columns = axes
    phases = rows.spread * columns.spread
    pixels = x.shape[0] * -(-rows.output // rows.spread) * -(-columns.output // columns.spread)
    if pixels == 0:
        return
    banks = 1 if relaxed_weight is None else relaxed_weight.shape[0]
    tables = group_tables(group)
    scale_input &= relaxed_weight is not None
    scale_output = relaxed_weight is not None and not scale_input
    x_fields_last = not lies_in_rows(x)
    crowded = phases > 1 or scale_output or not x_fields_last
    sizes = (len(tables["MATRICES"]), in_fields, out_fields)
    wide = is_wide(x, y)
    tile = configurations.irrep_fprop(*sizes, x.element_size() * 8, crowded, is_hopper(x), wide)
    if transformed is None and configurations.transforms_first(*sizes, crowded):
        transformed = _transformed(weight, group, size, banks * blocks, in_fields, out_fields, lifting, adjoint)
    with on_device(x):
        irrep_fprop_kernel[triton.cdiv(pixels, tile.pixels), triton.cdiv(out_fields, tile.out_fields), blocks * phases](
            x, activated, weight if transformed is None else transformed, relaxed_weight, bias, y,
            x.shape[0], in_fields, out_fields, banks, blocks, *map_strides(x), *map_strides(y),
            rows.input, columns.input, rows.output, columns.output, rows.stride, columns.stride,
            rows.padding, columns.padding, rows.dilation, columns.dilation,
            **chosen(tables, "MATRICES", "INVERSE", "BUTTERFLIES", "PRODUCTS", "SCALES"), SIZE=size, ORBITS=len(as_group(group).tap_orbits(size)) if lifting else size**2,
            LIFTING=lifting, ADJOINT=adjoint, TRANSFORMED=transformed is not None,
            TAPS=tap_lists(group, size, lifting, axes), ROW_SPREAD=rows.spread, COLUMN_SPREAD=columns.spread, MASKED=activated is not None,
            SCALE_INPUT=scale_input, SCALE_OUTPUT=scale_output,
            HAS_BIAS=bias is not None, RELU=relu, X_FIELDS_LAST=x_fields_last, Y_FIELDS_LAST=not lies_in_rows(y),
            WIDE=wide, PRECISION=precision(), PIXELS=tile.pixels, OUT_FIELDS=tile.out_fields, IN_FIELDS=tile.in_fields,
            num_warps=tile.num_warps, num_stages=tile.num_stages, maxnreg=tile.registers,
            # The weighted x and the first butterfly in one rounding would not be the same for x and g·x.
            enable_fp_fusion=not scale_input,
        )  # fmt: skip


def irrep_fprop(
    x: Tensor, weight: Tensor, relaxed_weight: Tensor | None, bias: Tensor | None, transformed_weight: Tensor | None,
    group: str, relax_on: str, stride: list[int], padding: list[int], dilation: list[int], groups: int, relu: bool,
) -> Tensor:  # fmt: skip
    """As ops.fprop, on a GPU."""
    bank_axis, lifting, size = int(relaxed_weight is not None), x.dim() == 4, weight.shape[-1]
    axes = forward_axes(size, x.shape[-2:], stride, padding, dilation)
    y = empty_map_like(x, weight.shape[bank_axis], as_group(group).order, axes[0].output, axes[1].output)
    _launch(
        x, None, weight.contiguous(), transformed_weight, contiguous(relaxed_weight), contiguous(bias), y, axes, group=group, size=size,
        in_fields=weight.shape[bank_axis + 1], out_fields=weight.shape[bank_axis] // groups, blocks=groups,
        lifting=lifting, adjoint=False, scale_input=relax_on == "input", relu=relu,
    )  # fmt: skip
    return y


def irrep_dgrad(
    dy: Tensor, weight: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, group: str, relax_on: str,
    input_size: list[int], stride: list[int], padding: list[int], dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """As ops.dgrad, on a GPU."""
    bank_axis, size = int(relaxed_weight is not None), weight.shape[-1]
    if activated is not None and activated.stride() != dy.stride():
        dy, activated = torch.ops.aten.threshold_backward(dy, activated, 0), None
    axes = adjoint_axes(size, forward_axes(size, input_size, stride, padding, dilation))
    dx = empty_map_like(dy, weight.shape[bank_axis + 1] * groups, dy.shape[2], *input_size)
    _launch(
        dy, activated, weight.contiguous(), None, contiguous(relaxed_weight), None, dx, axes, group=group, size=size,
        in_fields=weight.shape[bank_axis] // groups, out_fields=weight.shape[bank_axis + 1], blocks=groups,
        lifting=False, adjoint=True, scale_input=relax_on == "output", relu=False,
    )  # fmt: skip
    return dx


def irrep_transform_weight(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str, groups: int) -> Tensor:
    """As ops.transform_weight, for irrep_fprop on a GPU: [bank, block, orbit, plane, in field, out field]."""
    bank_axis = int(relaxed_weight is not None)
    lifting, size = weight.dim() == 4 + bank_axis, weight.shape[-1]
    out_fields, in_fields = weight.shape[bank_axis] // groups, weight.shape[bank_axis + 1]
    banks = weight.shape[0] if bank_axis else 1
    return _transformed(weight.contiguous(), group, size, banks * groups, in_fields, out_fields, lifting, adjoint=False).flatten()
