"""irrep wgrad: the same blocks as fprop with the pixels as the inner dimension.

    dΨ̂_s(ρ) = Σ_pixels dŷ(ρ)ᵀ X̂_s(ρ)

One program sums one orbit of taps for a tile of input × output fields over a share of the pixels; the shares are added
afterwards in a fixed order, so that the result does not depend on what ran when.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..groups import as_group
from ..memory_format import lies_in_rows
from . import configurations
from .launch import chosen, contiguous, forward_axes, group_tables, is_wide, map_strides, on_device, precision, tap_lists
from .tiles import fourier, inverse_fourier, listed_tap, listed_taps, load_map, moved_tap, replaced, widened


@triton.jit
def _add_product(sums, x, dy, PRODUCTS: tl.constexpr, TERM: tl.constexpr, PRECISION: tl.constexpr):
    PRODUCT: tl.constexpr = PRODUCTS[TERM]  # (plane of ŷ, of X̂, of Ψ̂, negated)
    tile = x[PRODUCT[1]]
    if PRODUCT[3]:
        tile = -tile
    product = tl.dot(tl.trans(tile), dy[PRODUCT[0]], sums[PRODUCT[2]], input_precision=PRECISION)
    return replaced(sums, PRODUCT[2], product)


@triton.jit
def irrep_wgrad_kernel(
    x, dy, activated, relaxed_weight, shares,
    batch, in_fields, out_fields, banks, blocks, pixels_per_share,
    x_batch, x_field, x_element, x_row, x_column, y_batch, y_field, y_element, y_row, y_column,
    rows_in, columns_in, rows, columns, row_stride, column_stride, row_padding, column_padding, row_dilation, column_dilation,
    MATRICES: tl.constexpr, BUTTERFLIES: tl.constexpr, PRODUCTS: tl.constexpr, SCALES: tl.constexpr,
    SIZE: tl.constexpr, LIFTING: tl.constexpr, TAPS: tl.constexpr, MASKED: tl.constexpr, SCALE_INPUT: tl.constexpr,
    SCALE_OUTPUT: tl.constexpr, X_FIELDS_LAST: tl.constexpr, Y_FIELDS_LAST: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr, PIXELS: tl.constexpr, OUT_FIELDS: tl.constexpr, IN_FIELDS: tl.constexpr,
):  # fmt: skip
    """Fields are those of one of `blocks` blocks; shares is [share, banks, blocks·O, C, |P|, SIZE, SIZE] in float32."""
    ORDER: tl.constexpr = len(MATRICES)
    STRIDE: tl.constexpr = SIZE * SIZE if LIFTING else ORDER * SIZE * SIZE
    out_tiles = tl.cdiv(out_fields, OUT_FIELDS)
    in_field = widened(tl.program_id(0) // out_tiles * IN_FIELDS + tl.arange(0, IN_FIELDS), WIDE)
    out_field = widened(tl.program_id(0) % out_tiles * OUT_FIELDS + tl.arange(0, OUT_FIELDS), WIDE)
    tap = tl.program_id(1)
    if TAPS is not None:
        tap = listed_tap(listed_taps(TAPS, 0), tap)
    bank = tl.program_id(2) % banks
    block = widened(tl.program_id(2) // banks % blocks, WIDE)
    share = widened(tl.program_id(2) // banks // blocks, WIDE)

    sums = ()
    for g in tl.static_range(ORDER):
        sums = sums + (tl.zeros((IN_FIELDS, OUT_FIELDS), tl.float32),)
    for start in range(0, pixels_per_share, PIXELS):
        pixel = share * pixels_per_share + start + tl.arange(0, PIXELS)
        image = pixel // (rows * columns)
        row = pixel // columns % rows
        column = pixel % columns
        x_plane = image * x_batch + block * in_fields * x_field
        y_plane = image * y_batch + block * out_fields * y_field
        x_tiles = ()
        y_tiles = ()
        for g in tl.static_range(ORDER):
            moved_row, moved_column = moved_tap(tap, MATRICES, g, SIZE)
            x_tile = load_map(
                x, x, x_plane, row * row_stride + moved_row * row_dilation - row_padding,
                column * column_stride + moved_column * column_dilation - column_padding, image < batch, in_field, in_fields,
                rows_in, columns_in, x_row, x_column, x_field, False, X_FIELDS_LAST,
            )  # fmt: skip
            y_tile = load_map(
                dy, activated, y_plane, row, column, image < batch, out_field, out_fields,
                rows, columns, y_row, y_column, y_field, MASKED, Y_FIELDS_LAST,
            )  # fmt: skip
            x_plane += x_element
            y_plane += y_element
            if SCALE_INPUT:
                x_tile = x_tile * tl.load(relaxed_weight + bank * ORDER + g)
            if SCALE_OUTPUT:
                y_tile = y_tile * tl.load(relaxed_weight + bank * ORDER + g)
            x_tiles = x_tiles + (x_tile,)
            y_tiles = y_tiles + (y_tile,)
        x_tiles = fourier(x_tiles, BUTTERFLIES)
        y_tiles = fourier(y_tiles, BUTTERFLIES)
        for term in tl.static_range(len(PRODUCTS)):
            sums = _add_product(sums, x_tiles, y_tiles, PRODUCTS, term, PRECISION)

    elements = inverse_fourier(sums, BUTTERFLIES, SCALES)
    pairs = out_field[None, :].to(tl.int64) * in_fields + in_field[:, None]
    at = ((share * banks + bank).to(tl.int64) * blocks + block) * in_fields * out_fields
    mask = (in_field < in_fields)[:, None] & (out_field < out_fields)[None, :]
    for g in tl.static_range(ORDER):
        row, column = moved_tap(tap, MATRICES, g, SIZE)
        position = row * SIZE + column
        total = elements[g]
        if LIFTING:
            # Elements that move the tap to the same place add up; each of them writes the sum.
            total = tl.zeros((IN_FIELDS, OUT_FIELDS), tl.float32)
            stabiliser = 0
            for h in tl.static_range(ORDER):
                other_row, other_column = moved_tap(tap, MATRICES, h, SIZE)
                total += tl.where(other_row * SIZE + other_column == position, elements[h], 0.0)
                stabiliser += (other_row * SIZE + other_column == tap).to(tl.int32)
            total = total / stabiliser.to(tl.float32)
        else:
            position += g * SIZE * SIZE
        tl.store(shares + (at + pairs) * STRIDE + position, total, mask=mask)


def irrep_wgrad(
    x: Tensor, dy: Tensor, relaxed_weight: Tensor | None, activated: Tensor | None, group: str, relax_on: str,
    kernel_size: int, stride: list[int], padding: list[int], dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """As ops.wgrad, on a GPU."""
    if activated is not None and activated.stride() != dy.stride():
        dy, activated = torch.ops.aten.threshold_backward(dy, activated, 0), None
    lifting, banks = x.dim() == 4, () if relaxed_weight is None else relaxed_weight.shape[:1]
    in_fields, out_fields = x.shape[1] // groups, dy.shape[1] // groups
    rows, columns = axes = forward_axes(kernel_size, x.shape[-2:], stride, padding, dilation)
    tables = group_tables(group)
    orbits = len(as_group(group).tap_orbits(kernel_size)) if lifting else kernel_size**2
    wide = is_wide(x, dy)
    tile = configurations.irrep_wgrad(len(tables["MATRICES"]), in_fields, out_fields, x.element_size() * 8, wide)
    tiles = triton.cdiv(in_fields, tile.in_fields) * triton.cdiv(out_fields, tile.out_fields)
    pixels, number = x.shape[0] * rows.output * columns.output, banks[0] if banks else 1
    count, pixels_per_share = configurations.shares(pixels, tile.pixels, tiles * orbits * number * groups)
    sizes = (*banks, dy.shape[1], in_fields, *x.shape[2:-2], kernel_size, kernel_size)
    shares = x.new_empty((count, *sizes), dtype=torch.float32)
    with on_device(x):
        irrep_wgrad_kernel[tiles, orbits, number * groups * count](
            x, dy, activated, contiguous(relaxed_weight), shares,
            x.shape[0], in_fields, out_fields, number, groups, pixels_per_share, *map_strides(x), *map_strides(dy),
            rows.input, columns.input, rows.output, columns.output, rows.stride, columns.stride,
            rows.padding, columns.padding, rows.dilation, columns.dilation,
            **chosen(tables, "MATRICES", "BUTTERFLIES", "PRODUCTS", "SCALES"), SIZE=kernel_size, LIFTING=lifting,
            TAPS=tap_lists(group, kernel_size, lifting, axes), MASKED=activated is not None,
            SCALE_INPUT=bool(banks) and relax_on == "input", SCALE_OUTPUT=bool(banks) and relax_on == "output",
            X_FIELDS_LAST=not lies_in_rows(x), Y_FIELDS_LAST=not lies_in_rows(dy), WIDE=wide, PRECISION=precision(),
            PIXELS=tile.pixels, OUT_FIELDS=tile.out_fields, IN_FIELDS=tile.in_fields,
            num_warps=tile.num_warps, num_stages=tile.num_stages, maxnreg=tile.registers,
            enable_fp_fusion=not banks,  # see irrep_fprop
        )  # fmt: skip
    return shares.sum(0).to(x.dtype)
