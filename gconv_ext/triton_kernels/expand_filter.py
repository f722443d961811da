"""Filter expansion: rotation of the bank, permutation of its group axis and the relaxed sum in one pass.

    F[o, u, c, v, t] = Σ_l w_l · ψ[l, o, c, w, s]        v = u·w, t = u·s        w_l at u (output) or at v (input)
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..groups import as_group
from .launch import contiguous, on_device

_NUMBERS = 256  # of one program
_MOST_SHARES = 64  # of a relaxed weight's gradient


@functools.cache
def _moved_positions(group: str, size: int, lifting: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """(moved [|P|, block], source [|P|, block]): where u moves the position (w, s) of a block to, and where what it moves to
    the position (v, t) comes from."""
    point_group = as_group(group)
    elements, taps = 1 if lifting else point_group.order, size**2
    moved = torch.tensor([
        [(0 if lifting else int(point_group.product[u, w])) * taps + point_group.moved_tap(u, s, size) for w in range(elements) for s in range(taps)]
        for u in range(point_group.order)
    ], dtype=torch.int32)  # fmt: skip
    return moved.to(device), moved.argsort(1).to(device, torch.int32)


@triton.jit
def expand_filter_kernel(
    weight, relaxed_weight, filter, source, pairs, banks, block, in_fields,
    ORDER: tl.constexpr, TAPS: tl.constexpr, RELAXED: tl.constexpr, RELAX_INPUT: tl.constexpr, SUMS: tl.constexpr,
    NUMBERS: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0).to(tl.int64) * NUMBERS + tl.arange(0, NUMBERS)  # of F [o, u, c, v, t]
    position = number % block
    field = number // block % in_fields
    u = number // block // in_fields % ORDER
    pair = number // block // in_fields // ORDER * in_fields + field
    inside = number < pairs * ORDER * block
    at = pair * block + tl.load(source + u * block + position, mask=inside, other=0)
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
    grad_filter, relaxed_weight, grad_weight, moved, pairs, banks, block, in_fields,
    ORDER: tl.constexpr, TAPS: tl.constexpr, RELAXED: tl.constexpr, RELAX_INPUT: tl.constexpr, SUMS: tl.constexpr,
    NUMBERS: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0).to(tl.int64) * NUMBERS + tl.arange(0, NUMBERS)  # of ψ [o, c, w, s]
    bank = tl.program_id(1)
    position = number % block
    pair = number // block
    inside = number < pairs * block
    total = tl.zeros((NUMBERS,), SUMS)
    for u in tl.static_range(ORDER):
        to = tl.load(moved + u * block + position, mask=inside, other=0)
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
    grad_filter, weight, shares, source, pairs, banks, block, in_fields, numbers_per_share,
    ORDER: tl.constexpr, TAPS: tl.constexpr, RELAX_INPUT: tl.constexpr, SUMS: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    """One share of <ψ_l, F's gradient> over all that w_l[element] multiplies: shares is [share, banks, |P|]."""
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
        of_bank = bank * pairs * block + pair * block + tl.load(source + u * block + position, mask=inside, other=0)
        taps = tl.load(weight + of_bank, mask=inside, other=0.0).to(SUMS)
        total += taps * tl.load(grad_filter + at, mask=inside, other=0.0).to(SUMS)
    tl.store(shares + share * banks * ORDER + tl.program_id(1), tl.sum(total))


def _sizes(weight: Tensor, relaxed_weight: Tensor | None, group: str) -> tuple[int, ...]:
    """(banks, output fields, input fields, numbers of a block, |P|, taps)."""
    bank_axis = int(relaxed_weight is not None)
    block = weight.shape[bank_axis + 2 :].numel()
    banks = weight.shape[0] if bank_axis else 1
    return banks, weight.shape[bank_axis], weight.shape[bank_axis + 1], block, as_group(group).order, weight.shape[-1] ** 2


def _sums(weight: Tensor) -> dict:
    return {"SUMS": tl.float64 if weight.dtype == torch.float64 else tl.float32, "NUMBERS": _NUMBERS}


def expand_filter(weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str) -> Tensor:
    """As ops.expand_filter, on a GPU."""
    banks, out_fields, in_fields, block, order, taps = _sizes(weight, relaxed_weight, group)
    size, lifting = weight.shape[-1], block == taps and weight.dim() == 4 + (relaxed_weight is not None)
    filter = weight.new_empty((out_fields * order, in_fields * block // taps, size, size))
    _, source = _moved_positions(group, size, lifting, weight.device)
    with on_device(weight):
        expand_filter_kernel[(triton.cdiv(filter.numel(), _NUMBERS),)](
            weight.contiguous(), contiguous(relaxed_weight), filter, source, out_fields * in_fields, banks, block, in_fields,
            ORDER=order, TAPS=taps, RELAXED=relaxed_weight is not None, RELAX_INPUT=relax_on == "input", **_sums(weight),
        )  # fmt: skip
    return filter


def expand_filter_backward(
    grad_filter: Tensor, weight: Tensor, relaxed_weight: Tensor | None, group: str, relax_on: str, output_mask: list[bool]
) -> tuple[Tensor, Tensor]:
    """As ops.expand_filter_backward, on a GPU."""
    banks, out_fields, in_fields, block, order, taps = _sizes(weight, relaxed_weight, group)
    pairs, lifting = out_fields * in_fields, weight.dim() == 4 + (relaxed_weight is not None)
    moved, source = _moved_positions(group, weight.shape[-1], lifting, weight.device)
    grad_filter, common = grad_filter.contiguous(), {"ORDER": order, "TAPS": taps, "RELAX_INPUT": relax_on == "input", **_sums(weight)}
    grad_weight = torch.empty(weight.shape if output_mask[0] else (0,), dtype=weight.dtype, device=weight.device)
    grad_relaxed_weight = weight.new_empty((0,))
    with on_device(weight):
        if output_mask[0]:
            expand_filter_backward_kernel[triton.cdiv(pairs * block, _NUMBERS), banks](
                grad_filter, contiguous(relaxed_weight), grad_weight, moved, pairs, banks, block, in_fields,
                RELAXED=relaxed_weight is not None, **common,
            )  # fmt: skip
        if output_mask[1]:
            numbers = pairs * (order * taps if relax_on == "input" else block)
            count = min(_MOST_SHARES, triton.cdiv(numbers, _NUMBERS))
            per_share = triton.cdiv(triton.cdiv(numbers, count), _NUMBERS) * _NUMBERS
            sums = torch.float64 if weight.dtype == torch.float64 else torch.float32
            shares = weight.new_empty((count, banks, order), dtype=sums)
            expand_filter_backward_relaxed_kernel[count, banks * order](
                grad_filter, weight.contiguous(), shares, source, pairs, banks, block, in_fields, per_share, **common
            )
            grad_relaxed_weight = shares.sum(0).to(weight.dtype)
    return grad_weight, grad_relaxed_weight
