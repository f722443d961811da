"""The contraction behind soft translation (contraction.py): z is formed in registers, tile by tile, and meets the
last weight matrix there.

    y[b, o, i, p] = Σ_c Σ_h weight[o, c, h] · z[c, h]
    z[c, h] = Σ_k hidden[p, i, k, h] · x[b, c, m, s·p + t],    k = (m, t)

The gradient to x is the same sum, with x and y, C and O, M and I in each other's place and hidden read where the tap
leads. No sum depends on the order in which programs run."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import on_device, precision

# Images, input fields, hidden features and terms of one tile of z, output fields of one product: small tiles, none
# timed.
_TILE = dict(IMAGES=16, FIELDS=8, FEATURES=16, TERMS=16, OUT_FIELDS=32)
_SHARES = 128  # of the sites, in wgrad


def _options(x: Tensor, size: int) -> dict:
    # Exact float32 products take registers of more threads; the number of registers as in configurations.Tile.
    return (
        dict(
            SIZE=size, PRECISION=precision(), num_warps=8 if x.dtype == torch.float32 else 4, num_stages=2, maxnreg=255
        )
        | _TILE
    )


@triton.jit
def _source(
    site, term, terms, elements, columns, rows_read, columns_read, hidden_elements, hidden_terms, stride, padding,
    SIZE: tl.constexpr, ADJOINT: tl.constexpr,
):  # fmt: skip
    """Where the terms of a site lead: (element, row and column of the map that is read, whether there is such a
    pixel, and the place of their features in hidden, counted in terms)."""
    element = site % elements
    row = site // elements // columns
    column = site // elements % columns
    other = term // (SIZE * SIZE)
    tap = term % (SIZE * SIZE)
    if ADJOINT:  # a pixel v of x reads dy at p = (v + padding − t) / stride
        row_at = row + padding - tap // SIZE
        column_at = column + padding - tap % SIZE
        inside = (row_at >= 0) & (column_at >= 0) & (row_at % stride == 0) & (column_at % stride == 0)
        row_at = tl.maximum(row_at, 0) // stride
        column_at = tl.maximum(column_at, 0) // stride
        place = (
            ((row_at * columns_read + column_at) * hidden_elements + other) * hidden_terms + element * SIZE * SIZE + tap
        )
    else:
        row_at = row * stride + tap // SIZE - padding
        column_at = column * stride + tap % SIZE - padding
        inside = (row_at >= 0) & (column_at >= 0)
        place = site * hidden_terms + term
    return other, row_at, column_at, inside & (row_at < rows_read) & (column_at < columns_read) & (term < terms), place


@triton.jit
def _taps(
    map, image, field, other, row, column, inside, batch, fields, elements_read, rows_read, columns_read,
):  # fmt: skip
    """A tile [images · fields, terms] of the map that is read."""
    plane = (image.to(tl.int64) * fields + field)[:, None] * elements_read + other[None, :]
    mask = ((image < batch) & (field < fields))[:, None] & inside[None, :]
    return tl.load(map + (plane * rows_read + row[None, :]) * columns_read + column[None, :], mask=mask, other=0.0)


@triton.jit
def _features(hidden, place, feature, features, inside):
    """A tile [terms, features]."""
    return tl.load(
        hidden + place.to(tl.int64)[:, None] * features + feature[None, :],
        mask=inside[:, None] & (feature < features)[None, :],
        other=0.0,
    )


@triton.jit
def _z(
    map, hidden, site, image, field, feature, batch, fields, features, terms, elements, columns, elements_read,
    rows_read,
    columns_read, hidden_elements, hidden_terms, stride, padding, SIZE: tl.constexpr, ADJOINT: tl.constexpr,
    PRECISION: tl.constexpr, TERMS: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """A tile [images · fields, features] of z."""
    z = tl.zeros((ROWS, FEATURES), tl.float32)
    for first in range(0, terms, TERMS):
        other, row, column, inside, place = _source(
            site, first + tl.arange(0, TERMS), terms, elements, columns, rows_read, columns_read, hidden_elements,
            hidden_terms, stride,
            padding, SIZE, ADJOINT,
        )  # fmt: skip
        taps = _taps(
            map, image, field, other, row, column, inside, batch, fields, elements_read, rows_read, columns_read
        )
        z = tl.dot(taps, _features(hidden, place, feature, features, inside), z, input_precision=PRECISION)
    return z


@triton.jit
def contract_fprop_kernel(
    map, hidden, weight, result, batch, fields, out_fields, features, terms, elements, rows, columns, elements_read,
    rows_read,
    columns_read, hidden_elements, hidden_terms, weight_in, weight_out, stride, padding, SIZE: tl.constexpr,
    ADJOINT: tl.constexpr, PRECISION: tl.constexpr, IMAGES: tl.constexpr, FIELDS: tl.constexpr, FEATURES: tl.constexpr,
    TERMS: tl.constexpr, OUT_FIELDS: tl.constexpr,
):  # fmt: skip
    """One site and tile of images and output fields; result is [B, out_fields, elements, rows, columns]."""
    site = tl.program_id(0)
    row_of_tile = tl.arange(0, IMAGES * FIELDS)
    lane = tl.arange(0, FIELDS * FEATURES)
    out_field = tl.program_id(2) * OUT_FIELDS + tl.arange(0, OUT_FIELDS)
    image = tl.program_id(1) * IMAGES
    sums = tl.zeros((IMAGES, OUT_FIELDS), tl.float32)
    for field in range(0, fields, FIELDS):
        for feature in range(0, features, FEATURES):
            z = _z(
                map, hidden, site, image + row_of_tile // FIELDS, field + row_of_tile % FIELDS, feature + tl.arange(0,
                FEATURES), batch,
                fields, features, terms, elements, columns, elements_read, rows_read, columns_read, hidden_elements,
                hidden_terms,
                stride, padding, SIZE, ADJOINT, PRECISION, TERMS, IMAGES * FIELDS, FEATURES,
            )  # fmt: skip
            of_field = field + lane // FEATURES
            of_feature = feature + lane % FEATURES
            mask = ((of_field < fields) & (of_feature < features))[:, None] & (out_field < out_fields)[None, :]
            matrix = tl.load(
                weight + (of_field * weight_in + of_feature)[:, None] + out_field[None, :] * weight_out,
                mask=mask,
                other=0.0,
            )
            z = tl.reshape(z, (IMAGES, FIELDS * FEATURES)).to(map.dtype.element_ty)
            sums = tl.dot(z, matrix, sums, input_precision=PRECISION)
    of_image = image + tl.arange(0, IMAGES)
    plane = (of_image.to(tl.int64)[:, None] * out_fields + out_field[None, :]) * elements + site % elements
    mask = (of_image < batch)[:, None] & (out_field < out_fields)[None, :]
    tl.store(result + plane * rows * columns + site // elements, sums.to(result.dtype.element_ty), mask=mask)


@triton.jit
def _dy(dy, image, out_field, site, batch, out_fields, elements, pixels):
    """A tile [images, output fields] of dy at a site."""
    plane = (image.to(tl.int64)[:, None] * out_fields + out_field[None, :]) * elements + site % elements
    mask = (image < batch)[:, None] & (out_field < out_fields)[None, :]
    return tl.load(dy + plane * pixels + site // elements, mask=mask, other=0.0)


@triton.jit
def contract_hgrad_kernel(
    x, dy, weight, dhidden, batch, fields, out_fields, features, terms, elements, rows, columns, elements_read,
    rows_read,
    columns_read, stride, padding, SIZE: tl.constexpr, PRECISION: tl.constexpr, IMAGES: tl.constexpr,
    FIELDS: tl.constexpr,
    FEATURES: tl.constexpr, TERMS: tl.constexpr, OUT_FIELDS: tl.constexpr,
):  # fmt: skip
    """One site and tile of terms and features: the sum over images and fields of x times dz = weight · dy."""
    site = tl.program_id(0)
    term = tl.program_id(1) * TERMS + tl.arange(0, TERMS)
    feature = tl.program_id(2) * FEATURES + tl.arange(0, FEATURES)
    row_of_tile = tl.arange(0, IMAGES * FIELDS)
    lane = tl.arange(0, FIELDS * FEATURES)
    other, row, column, inside, place = _source(
        site, term, terms, elements, columns, rows_read, columns_read, elements, terms, stride, padding, SIZE, False
    )
    sums = tl.zeros((TERMS, FEATURES), tl.float32)
    for image in range(0, batch, IMAGES):
        for field in range(0, fields, FIELDS):
            dz = tl.zeros((IMAGES, FIELDS * FEATURES), tl.float32)
            of_field = field + lane // FEATURES
            of_feature = tl.program_id(2) * FEATURES + lane % FEATURES
            for first in range(0, out_fields, OUT_FIELDS):
                out_field = first + tl.arange(0, OUT_FIELDS)
                dy_tile = _dy(
                    dy, image + tl.arange(0, IMAGES), out_field, site, batch, out_fields, elements, rows * columns
                )
                mask = (out_field < out_fields)[:, None] & ((of_field < fields) & (of_feature < features))[None, :]
                at = (out_field[:, None] * fields + of_field[None, :]) * features + of_feature[None, :]
                dz = tl.dot(dy_tile, tl.load(weight + at, mask=mask, other=0.0), dz, input_precision=PRECISION)
            taps = _taps(
                x, image + row_of_tile // FIELDS, field + row_of_tile % FIELDS, other, row, column, inside, batch,
                fields,
                elements_read, rows_read, columns_read,
            )  # fmt: skip
            dz = tl.reshape(dz, (IMAGES * FIELDS, FEATURES)).to(x.dtype.element_ty)
            sums = tl.dot(tl.trans(taps), dz, sums, input_precision=PRECISION)
    at = (site.to(tl.int64) * terms + term)[:, None] * features + feature[None, :]
    tl.store(
        dhidden + at, sums.to(dhidden.dtype.element_ty), mask=(term < terms)[:, None] & (feature < features)[None, :]
    )


@triton.jit
def contract_wgrad_kernel(
    x, dy, hidden, shares, batch, fields, out_fields, features, terms, elements, rows, columns, elements_read,
    rows_read,
    columns_read, stride, padding, sites_of_share, SIZE: tl.constexpr, PRECISION: tl.constexpr, IMAGES: tl.constexpr,
    FIELDS: tl.constexpr, FEATURES: tl.constexpr, TERMS: tl.constexpr, OUT_FIELDS: tl.constexpr,
):  # fmt: skip
    """One tile of the weight over a share of the sites; shares is [share, C, D, O] in float32."""
    tiles = tl.cdiv(features, FEATURES)
    field = tl.program_id(1) // tiles * FIELDS
    feature = tl.program_id(1) % tiles * FEATURES
    out_field = tl.program_id(2) * OUT_FIELDS + tl.arange(0, OUT_FIELDS)
    row_of_tile = tl.arange(0, IMAGES * FIELDS)
    lane = tl.arange(0, FIELDS * FEATURES)
    sums = tl.zeros((FIELDS * FEATURES, OUT_FIELDS), tl.float32)
    first = tl.program_id(0) * sites_of_share
    for site in range(first, tl.minimum(first + sites_of_share, rows * columns * elements)):
        for image in range(0, batch, IMAGES):
            z = _z(
                x, hidden, site, image + row_of_tile // FIELDS, field + row_of_tile % FIELDS, feature + tl.arange(0,
                FEATURES), batch,
                fields, features, terms, elements, columns, elements_read, rows_read, columns_read, elements, terms,
                stride, padding,
                SIZE, False, PRECISION, TERMS, IMAGES * FIELDS, FEATURES,
            )  # fmt: skip
            z = tl.reshape(z, (IMAGES, FIELDS * FEATURES)).to(x.dtype.element_ty)
            dy_tile = _dy(
                dy, image + tl.arange(0, IMAGES), out_field, site, batch, out_fields, elements, rows * columns
            )
            sums = tl.dot(tl.trans(z), dy_tile, sums, input_precision=PRECISION)
    of_field = field + lane // FEATURES
    of_feature = feature + lane % FEATURES
    at = ((tl.program_id(0) * fields + of_field) * features + of_feature)[:, None] * out_fields + out_field[None, :]
    mask = ((of_field < fields) & (of_feature < features))[:, None] & (out_field < out_fields)[None, :]
    tl.store(shares + at, sums, mask=mask)


def contract_fprop(x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """As ops.contract_fprop, on a GPU."""
    x, hidden, weight = x.contiguous(), hidden.contiguous(), weight.contiguous()
    y = x.new_empty(x.shape[0], weight.shape[0], hidden.shape[2], *hidden.shape[:2])
    return _fprop(x, hidden, weight, y, weight.stride(), stride, padding, adjoint=False)


def _fprop(
    source: Tensor, hidden: Tensor, weight: Tensor, result: Tensor, weight_strides, stride, padding, *, adjoint: bool
) -> Tensor:
    size, (out_stride, in_stride, _) = math.isqrt(hidden.shape[4]), weight_strides
    (batch, out_fields, elements, *space), (fields, *read) = result.shape, source.shape[1:]
    if result.numel() == 0:
        return result
    grid = (
        space[0] * space[1] * elements,
        triton.cdiv(batch, _TILE["IMAGES"]),
        triton.cdiv(out_fields, _TILE["OUT_FIELDS"]),
    )
    with on_device(source):
        contract_fprop_kernel[grid](
            source, hidden, weight, result, batch, fields, out_fields, hidden.shape[5], read[0] * size**2, elements,
            *space, *read,
            hidden.shape[2], hidden.shape[3] * size**2, in_stride, out_stride, stride, padding, ADJOINT=adjoint,
            **_options(source, size),
        )  # fmt: skip
    return result


def contract_backward(
    dy: Tensor, x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int, output_mask: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """As ops.contract_backward, on a GPU."""
    dy, x, hidden, weight = dy.contiguous(), x.contiguous(), hidden.contiguous(), weight.contiguous()
    size, features = math.isqrt(hidden.shape[4]), hidden.shape[5]
    terms, sites = x.shape[2] * size**2, math.prod(hidden.shape[:3])
    # What the last two kernels share: sizes of the products, of the sites, of the map that is read.
    sizes = (x.shape[0], x.shape[1], dy.shape[1], features, terms, *dy.shape[2:], *x.shape[2:], stride, padding)
    options, feature_tiles = _options(x, size), triton.cdiv(features, _TILE["FEATURES"])
    dx, dhidden, dweight = (
        like.new_empty(like.shape if needed else 0) for like, needed in zip((x, hidden, weight), output_mask)
    )
    if output_mask[0]:
        out_stride, in_stride, feature_stride = weight.stride()
        _fprop(dy, hidden, weight, dx, (in_stride, out_stride, feature_stride), stride, padding, adjoint=True)
    with on_device(x):
        if output_mask[1]:
            contract_hgrad_kernel[sites, triton.cdiv(terms, _TILE["TERMS"]), feature_tiles](
                x, dy, weight, dhidden, *sizes, **options
            )
        if output_mask[2]:
            sites_of_share = triton.cdiv(sites, _SHARES)
            count = triton.cdiv(sites, sites_of_share)
            shares = x.new_empty(count, x.shape[1], features, dy.shape[1], dtype=torch.float32)
            grid = (
                count,
                triton.cdiv(x.shape[1], _TILE["FIELDS"]) * feature_tiles,
                triton.cdiv(dy.shape[1], _TILE["OUT_FIELDS"]),
            )
            contract_wgrad_kernel[grid](x, dy, hidden, shares, *sizes, sites_of_share, **options)
            dweight = shares.sum(0).permute(2, 0, 1).to(x.dtype).contiguous()
    return dx, dhidden, dweight
