"""The tile sizes of the Triton kernels, by group order, fields and size of a number: the largest of a few that need no more
registers than there are, as the compiler reports them for sm_80 and sm_90 (python_tests/triton_kernels/test_compiled.py
refuses spills).  None has been timed."""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """What one program makes: pixels × out_fields of all elements, in_fields at a time.  `registers` is what a thread may
    have; without a number the compiler weighs them against occupancy, and at times spills a few for it."""

    pixels: int
    out_fields: int
    in_fields: int
    num_warps: int
    num_stages: int
    registers: int | None = 255


def _fitting(fields: int, most: int) -> int:
    """The smallest tile that the tensor cores take and that holds the fields."""
    return min(most, max(16, 1 << (fields - 1).bit_length()))


def irrep_fprop(order: int, in_fields: int, out_fields: int, bits: int, crowded: bool, hopper: bool, wide: bool) -> Tile:
    """`crowded`: more to hold in registers: phases of a strided dgrad, the sums over filter banks, maps in rows of pixels.
    `hopper`: sm_90 or newer, whose tensor cores read the filter from shared memory.  `wide`: with 64-bit offsets."""
    if bits == 32:
        return Tile(32, 16, 16, 4, 1)
    if order == 8:
        if not hopper or (wide and crowded):
            return Tile(32, 16, 16, 8, 2) if crowded else Tile(64, 16, 16, 8, 3)
        return Tile(64, _fitting(out_fields, 32), 16, 8 if crowded or out_fields > 16 else 4, 3)
    tile = _fitting(out_fields, 64)
    if tile == 16:
        return Tile(64, 16, 16, 8 if wide and crowded else 4, 3)
    if not hopper:
        return Tile(64, 32, 16, 8, 3) if crowded else Tile(64, tile, 16, 8, 3)
    return Tile(128 if tile == 64 and not crowded else 64, tile, _fitting(in_fields, 32), 8 if crowded or tile == 64 else 4, 3)


def transforms_first(order: int, in_fields: int, out_fields: int, crowded: bool) -> bool:
    """Whether the weight is transformed by a launch of its own, not by every program anew."""
    return max(in_fields, out_fields) > 16 or (order == 8 and crowded)


def irrep_wgrad(order: int, in_fields: int, out_fields: int, bits: int, wide: bool) -> Tile:
    """`wide` as above."""
    out_tile = _fitting(out_fields, 32)
    pixels = 16 if order == 8 and out_tile == 16 else 32
    return Tile(pixels, out_tile, 16, 8, 2, 255 if bits == 16 or wide else None)


def fused_fprop(order: int, in_fields: int, out_fields: int, bits: int) -> Tile:
    """The tile holds the out_fields of all elements, order · out_fields columns."""
    if bits == 32:
        return Tile(32, 16, 16, 8, 1, None) if order == 8 else Tile(64, 16, 16, 8, 2, None)
    out_tile = _fitting(out_fields, max(16, 128 // order))
    return Tile(32, out_tile, 16, 8, 1) if order == 8 else Tile(64, out_tile, 16, 8, 2)


def fused_wgrad(order: int, in_fields: int, out_fields: int, bits: int) -> Tile:
    if bits == 32:
        return Tile(16, 16, 16, 8, 2)
    most = 16 if order == 8 else 32
    return Tile(32, _fitting(out_fields, most), _fitting(in_fields, most), 4, 2)


_PROGRAMS = 528  # four on each multiprocessor of an H200
_LEAST_TILES = 8  # of pixels in one share


def shares(pixels: int, tile: int, programs: int) -> tuple[int, int]:
    """(How many shares wgrad makes of the pixels, how many pixels each has), when each takes `programs` programs."""
    tiles = max(1, -(-pixels // tile))
    count = max(1, min(tiles // _LEAST_TILES, -(-_PROGRAMS // programs)))
    tiles_each = -(-tiles // count)
    return -(-tiles // tiles_each), tiles_each * tile
