"""Filter expansion: rotation of the bank, permutation of its group axis and the relaxed sum in one pass.

    F[o, u, c, v, t] = Σ_l w_l · ψ[l, o, c, w, s]        v = u·w, t = u·s        w_l at u (output) or at v (input)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..groups import as_group
from .launch import chosen, contiguous, group_tables, on_device
from .tiles import moved_tap

_NUMBERS = 256  # of one program
_MOST_SHARES = 64  # of a relaxed weight's gradient


@triton.jit
def _moved_by(
    G: tl.constexpr, position, MATRICES: tl.constexpr, PRODUCT_ROWS: tl.constexpr, SIZE: tl.constexpr, LIFTING: tl.constexpr
):
    """The position (g·w, g·s) in a block of that of (w, s)."""
    row, column = moved_tap(position % (SIZE * SIZE), MATRICES, G, SIZE)
    moved = row * SIZE + column
    if not LIFTING:
        moved += ((PRODUCT_ROWS[G] >> (4 * (position // (SIZE * SIZE)))) & 15) * (SIZE * SIZE)
    return moved


@triton.jit
def _source(
    u, position, MATRICES: tl.constexpr, PRODUCT_ROWS: tl.constexpr, INVERSE: tl.constexpr, SIZE: tl.constexpr, LIFTING: tl.constexpr
):  # fmt: skip
    """The position (w, s) of what u moves to the position (v, t)."""
    source = position
    for g in tl.static_range(len(INVERSE)):
        source = tl.where(u == g, _moved_by(INVERSE[g], position, MATRICES, PRODUCT_ROWS, SIZE, LIFTING), source)
    return source


@triton.jit
def expand_filter_kernel(
    weight, relaxed_weight, filter, pairs, banks, block, in_fields,
    MATRICES: tl.constexpr, PRODUCT_ROWS: tl.constexpr, INVERSE: tl.constexpr,
    SIZE: tl.constexpr, LIFTING: tl.constexpr, RELAXED: tl.constexpr, RELAX_INPUT: tl.constexpr, SUMS: tl.constexpr,
    NUMBERS: tl.constexpr,
):  # fmt: skip
    ORDER: tl.constexpr = len(MATRICES)
    TAPS: tl.constexpr = SIZE * SIZE
    number = tl.program_id(0).to(tl.int64) * NUMBERS + tl.arange(0, NUMBERS)  # of F [o, u, c, v, t]
    position = number % block
    field = number // block % in_fields
    u = number // block // in_fields % ORDER
    pair = number // block // in_fields // ORDER * in_fields + field
    inside = number < pairs * ORDER * block
    at = pair * block + _source(u, position, MATRICES, PRODUCT_ROWS, INVERSE, SIZE, LIFTING)
    total = tl.zeros((NUMBERS,), SUMS)
    for bank in range(banks):
        taps = tl.load(weight + bank * pairs * block + at, mask=inside, other=0.0).to(SUMS)
        if RELAXED:
            element = position // TAPS if RELAX_INPUT else u
            taps *= tl.load(relaxed_weight + bank * ORDER + element, mask=inside, other=0.0).to(SUMS)
        total += taps
    tl.store(filter + number, total.to(filter.dtype.element_ty), mask=inside)


@triton.jit
def expand_filter_backward_kernel(
    grad_filter, relaxed_weight, grad_weight, pairs, banks, block, in_fields,
    MATRICES: tl.constexpr, PRODUCT_ROWS: tl.constexpr, INVERSE: tl.constexpr,
    SIZE: tl.constexpr, LIFTING: tl.constexpr, RELAXED: tl.constexpr, RELAX_INPUT: tl.constexpr, SUMS: tl.constexpr,
    NUMBERS: tl.constexpr,
):  # fmt: skip
    ORDER: tl.constexpr = len(MATRICES)
    TAPS: tl.constexpr = SIZE * SIZE
    number = tl.program_id(0).to(tl.int64) * NUMBERS + tl.arange(0, NUMBERS)  # of ψ [o, c, w, s]
    bank = tl.program_id(1)
    position = number % block
    pair = number // block
    inside = number < pairs * block
    total = tl.zeros((NUMBERS,), SUMS)
    for u in tl.static_range(ORDER):
        to = _moved_by(u, position, MATRICES, PRODUCT_ROWS, SIZE, LIFTING)
        at = ((pair // in_fields * ORDER + u) * in_fields + pair % in_fields) * block + to
        taps = tl.load(grad_filter + at, mask=inside, other=0.0).to(SUMS)
        if RELAXED:
            if RELAX_INPUT:
                taps *= tl.load(relaxed_weight + bank * ORDER + to // TAPS, mask=inside, other=0.0).to(SUMS)
            else:
                taps *= tl.load(relaxed_weight + bank * ORDER + u).to(SUMS)
        total += taps
    tl.store(grad_weight + bank * pairs * block + number, total.to(grad_weight.dtype.element_ty), mask=inside)


@triton.jit
def expand_filter_backward_relaxed_kernel(
    grad_filter, weight, shares, pairs, banks, block, in_fields, numbers_per_share,
    MATRICES: tl.constexpr, PRODUCT_ROWS: tl.constexpr, INVERSE: tl.constexpr,
    SIZE: tl.constexpr, LIFTING: tl.constexpr, RELAX_INPUT: tl.constexpr, SUMS: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    """One share of <ψ_l, F's gradient> over all that w_l[element] multiplies: shares is [share, banks, |P|]."""
    ORDER: tl.constexpr = len(MATRICES)
    TAPS: tl.constexpr = SIZE * SIZE
    share = tl.program_id(0)
    bank = tl.program_id(1) // ORDER
    element = tl.program_id(1) % ORDER
    # w_l at u multiplies the positions (v, t) of one u; at v, the positions t of one v and all u.
    within: tl.constexpr = ORDER * TAPS if RELAX_INPUT else 1
    per_pair = within if RELAX_INPUT else block
    total = tl.zeros((NUMBERS,), SUMS)
    for start in range(0, numbers_per_share, NUMBERS):
        number = share.to(tl.int64) * numbers_per_share + start + tl.arange(0, NUMBERS)
        pair = number // per_pair
        inside = pair < pairs
        if RELAX_INPUT:
            u = number % per_pair // TAPS
            position = element * TAPS + number % TAPS
        else:
            u = element
            position = number % per_pair
        at = ((pair // in_fields * ORDER + u) * in_fields + pair % in_fields) * block + position
        of_bank = bank * pairs * block + pair * block + _source(u, position, MATRICES, PRODUCT_ROWS, INVERSE, SIZE, LIFTING)
        taps = tl.load(weight + of_bank, mask=inside, other=0.0).to(SUMS)
        total += taps * tl.load(grad_filter + at, mask=inside, other=0.0).to(SUMS)
    tl.store(shares + share * banks * ORDER + tl.program_id(1), tl.sum(total))


def _sizes(weight: Tensor, relaxed_weight: Tensor | None, group: str) -> tuple[int, ...]:
    """(banks, output fields, input fields, numbers of a block, |P|, taps)."""
    bank_axis = int(relaxed_weight is not None)
    block = weight.shape[bank_axis + 2 :].numel()
    banks = weight.shape[0] if bank_axis else 1
    return banks, weight.shape[bank_axis], weight.shape[bank_axis + 1], block, as_group(group).order, weight.shape[-1] ** 2


def _constants(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str) -> dict:
    return chosen(group_tables(group), "MATRICES", "PRODUCT_ROWS", "INVERSE") | {
        "SIZE": weight.shape[-1], "LIFTING": weight.dim() == 4 + (relaxed_weight is not None),
        "RELAX_INPUT": relax_on == "input", "SUMS": tl.float64 if weight.dtype == torch.float64 else tl.float32,
        "NUMBERS": _NUMBERS,
    }  # fmt: skip


def expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str) -> Tensor:
    """As ops.expand_filter, on a GPU."""
    banks, out_fields, in_fields, block, order, taps = _sizes(weight, relaxed_weight, group)
    filter = weight.new_empty((out_fields * order, in_fields * block // taps, *weight.shape[-2:]))
    with on_device(weight):
        expand_filter_kernel[(triton.cdiv(filter.numel(), _NUMBERS),)](
            weight.contiguous(), contiguous(relaxed_weight), filter, out_fields * in_fields, banks, block, in_fields,
            RELAXED=relaxed_weight is not None, **_constants(weight, relaxed_weight, group, relax_on),
        )  # fmt: skip
    return filter


def expand_filter_backward(
    grad_filter: Tensor, weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str, output_mask: list[bool]
) -> tuple[Tensor, Tensor]:
    """As ops.expand_filter_backward, on a GPU."""
    banks, out_fields, in_fields, block, order, taps = _sizes(weight, relaxed_weight, group)
    pairs, constants = out_fields * in_fields, _constants(weight, relaxed_weight, group, relax_on)
    grad_filter = grad_filter.contiguous()
    grad_weight = torch.empty(weight.shape if output_mask[0] else (0,), dtype=weight.dtype, device=weight.device)
    grad_relaxed_weight = weight.new_empty((0,))
    with on_device(weight):
        if output_mask[0]:
            expand_filter_backward_kernel[triton.cdiv(pairs * block, _NUMBERS), banks](
                grad_filter, contiguous(relaxed_weight), grad_weight, pairs, banks, block, in_fields,
                RELAXED=relaxed_weight is not None, **constants,
            )  # fmt: skip
        if output_mask[1]:
            numbers = pairs * (order * taps if relax_on == "input" else block)
            count = min(_MOST_SHARES, triton.cdiv(numbers, _NUMBERS))
            per_share = triton.cdiv(triton.cdiv(numbers, count), _NUMBERS) * _NUMBERS
            sums = torch.float64 if weight.dtype == torch.float64 else torch.float32
            shares = weight.new_empty((count, banks, order), dtype=sums)
            expand_filter_backward_relaxed_kernel[count, banks * order](
                grad_filter, weight.contiguous(), shares, pairs, banks, block, in_fields, per_share, **constants
            )
            grad_relaxed_weight = shares.sum(0).to(weight.dtype)
    return grad_weight, grad_relaxed_weight
