"""The tile sizes of the Triton kernels: one small table each, by group order and fields.  They are chosen for registers and
shared memory as the compiler reports them (python_tests/triton_kernels/test_compiled.py checks that none spills); none has
been timed."""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """What one program makes: pixels × out_fields of all elements, in_fields at a time."""

    pixels: int
    out_fields: int
    in_fields: int
    num_warps: int
    num_stages: int


def _fitting(fields: int, most: int) -> int:
    """The smallest tile that the tensor cores take and that holds the fields."""
    return min(most, max(16, 1 << (fields - 1).bit_length()))


def irrep_fprop(order: int, in_fields: int, out_fields: int, bits: int) -> Tile:
    out_tile, in_tile = _fitting(out_fields, 64 if order < 8 else 32), _fitting(in_fields, 32)
    if bits == 32:
        return Tile(64, min(out_tile, 32), 16, 4, 2)
    return Tile(64 if out_tile < 64 else 128, out_tile, in_tile, 4 if out_tile < 64 else 8, 3)


def irrep_wgrad(order: int, in_fields: int, out_fields: int, bits: int) -> Tile:
    most = 64 if order < 8 and bits == 16 else 32
    return Tile(32 if bits == 16 else 16, _fitting(out_fields, most), _fitting(in_fields, 32), 4, 2)


_PROGRAMS = 528  # four on each multiprocessor of an H200
_LEAST_TILES = 8  # of pixels in one share


def shares(pixels: int, tile: int, programs: int) -> tuple[int, int]:
    """(How many shares wgrad makes of the pixels, how many pixels each has), when each takes `programs` programs."""
    tiles = -(-pixels // tile)
    count = max(1, min(tiles // _LEAST_TILES, -(-_PROGRAMS // programs)))
    tiles_each = -(-tiles // count)
    return max(1, -(-tiles // max(1, tiles_each))), tiles_each * tile


def fused_fprop(order: int, in_fields: int, out_fields: int, bits: int) -> Tile:
    """The tile holds the out_fields of all elements, order · out_fields columns."""
    most = max(16, (128 if bits == 16 else 64) // order)
    return Tile(64, _fitting(out_fields, most), _fitting(in_fields, 32 if bits == 16 else 16), 4, 2)


def fused_wgrad(order: int, in_fields: int, out_fields: int, bits: int) -> Tile:
    return Tile(32 if bits == 16 else 16, _fitting(out_fields, 32), _fitting(in_fields, 32), 4, 2)
