"""What the Triton kernels share: the group's action on taps, the Fourier transform in registers, tiles of maps and filters.

A group reaches a kernel as constexpr tables (`group_tables` in launch.py), so that a new group is a new table.  Tuples of |P|
tiles hold one tile for each element, or for each plane of the transform.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def moved_tap(tap, MATRICES: tl.constexpr, G: tl.constexpr, SIZE: tl.constexpr):
    """(row, column) of the tap g·s.  Offsets from the centre are doubled, so that even sizes stay whole numbers."""
    row = 2 * (tap // SIZE) - (SIZE - 1)
    column = 2 * (tap % SIZE) - (SIZE - 1)
    M: tl.constexpr = MATRICES[G]
    moved_row = (M[0] * row + M[1] * column + SIZE - 1) // 2
    moved_column = (M[2] * row + M[3] * column + SIZE - 1) // 2
    return moved_row, moved_column


@triton.jit
def _listed(LISTS: tl.constexpr, phase, I: tl.constexpr):
    """The phase's entry I; LISTS is the length of an entry list, then one list after the other."""
    LENGTH: tl.constexpr = LISTS[0]
    found = tl.zeros((), tl.int64)
    for p in tl.static_range(len(LISTS) // LENGTH):
        found = tl.where(phase == p, tl.full((), LISTS[1 + p * LENGTH + I], tl.int64), found)
    return found


@triton.jit
def listed_count(LISTS: tl.constexpr, phase):
    """How many taps a phase has (launch.tap_lists)."""
    return _listed(LISTS, phase, 0).to(tl.int32)


@triton.jit
def listed_taps(LISTS: tl.constexpr, phase):
    """The numbers that hold them."""
    LENGTH: tl.constexpr = LISTS[0]
    words = ()
    for i in tl.static_range(1, LENGTH):
        words = words + (_listed(LISTS, phase, i),)
    return words


@triton.jit
def listed_tap(words, index):
    """The tap at that index of them."""
    word = words[0]
    for i in tl.static_range(1, len(words)):
        word = tl.where(index // 4 == i, words[i], word)
    return ((word >> (16 * (index % 4)).to(tl.int64)) & 0xFFFF).to(tl.int32)


@triton.jit
def widened(number, WIDE: tl.constexpr):
    """In 64 bits where an offset can pass 2³¹ − 1."""
    return number.to(tl.int64) if WIDE else number


@triton.jit
def replaced(tiles, AT: tl.constexpr, tile):
    """The tuple with one entry exchanged."""
    out = ()
    for g in tl.static_range(len(tiles)):
        if g == AT:
            out = out + (tile,)
        else:
            out = out + (tiles[g],)
    return out


@triton.jit
def _butterfly(tiles, BUTTERFLIES: tl.constexpr, STEP: tl.constexpr, TRANSPOSED: tl.constexpr):
    PAIR: tl.constexpr = BUTTERFLIES[STEP]  # (a, b, turned)
    a = tiles[PAIR[0]]
    b = tiles[PAIR[1]]
    plus = a + b
    if PAIR[2]:
        if TRANSPOSED:
            return replaced(replaced(tiles, PAIR[0], a - b), PAIR[1], plus)
        else:
            return replaced(replaced(tiles, PAIR[0], plus), PAIR[1], b - a)
    else:
        return replaced(replaced(tiles, PAIR[0], plus), PAIR[1], a - b)


@triton.jit
def fourier(tiles, BUTTERFLIES: tl.constexpr):
    """|P| tiles, one for each element -> one for each plane."""
    for step in tl.static_range(len(BUTTERFLIES)):
        tiles = _butterfly(tiles, BUTTERFLIES, step, False)
    return tiles


@triton.jit
def inverse_fourier(tiles, BUTTERFLIES: tl.constexpr, SCALES: tl.constexpr):
    """|P| tiles, one for each plane -> one for each element.  It is the transform's own transpose, scaled; so it also
    takes gradients of planes of Ψ̂, if those of ŷ were not scaled before, to gradients of Ψ."""
    out = ()
    for plane in tl.static_range(len(tiles)):
        out = out + (tiles[plane] * SCALES[plane],)
    for step in tl.static_range(len(BUTTERFLIES)):
        out = _butterfly(out, BUTTERFLIES, len(BUTTERFLIES) - 1 - step, True)
    return out


@triton.jit
def load_map(
    map, activated, pixel, row, column, reads, field, fields, rows, columns, row_stride, column_stride, field_stride,
    MASKED: tl.constexpr, FIELDS_LAST: tl.constexpr,
):  # fmt: skip
    """A tile [pixels, fields] of one plane; zero outside the map, and where `activated` is not above 0 if MASKED.

    pixel [M]: where each pixel's image and plane begin; row, column [M]: in that plane; reads: whether they lie in it at all;
    field [K].  The tile is read with the threads along what is contiguous.
    """
    inside = reads & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    offset = pixel + row * row_stride + column * column_stride
    if FIELDS_LAST:
        offsets = offset[:, None] + field[None, :] * field_stride
        mask = inside[:, None] & (field < fields)[None, :]
    else:
        offsets = offset[None, :] + field[:, None] * field_stride
        mask = inside[None, :] & (field < fields)[:, None]
    tile = tl.load(map + offsets, mask=mask, other=0.0)
    if MASKED:
        # Not above 0: a NaN lets the gradient through, as in PyTorch.
        tile = tl.where(tl.load(activated + offsets, mask=mask, other=0.0) <= 0.0, 0.0, tile)
    return tile if FIELDS_LAST else tl.trans(tile)


@triton.jit
def load_filter(
    weight, tap, in_field, out_field, mask, LIFTING: tl.constexpr, ADJOINT: tl.constexpr, SIZE: tl.constexpr,
    MATRICES: tl.constexpr, INVERSE: tl.constexpr, BUTTERFLIES: tl.constexpr,
):  # fmt: skip
    """The planes of Ψ̂ for the orbit of `tap`, |P| tiles of the shape of in_field + out_field (offsets of fields in the
    filter bank), in float32.  ADJOINT: of ψ'[c, o, a, b] = ψ[o, c, a⁻¹, −a⁻¹b], with which dgrad is an fprop."""
    tiles = ()
    stabiliser = 0
    for g in tl.static_range(len(MATRICES)):
        row, column = moved_tap(tap, MATRICES, g, SIZE)
        position = row * SIZE + column
        stabiliser += (position == tap).to(tl.int32)
        if ADJOINT:
            position = INVERSE[g] * SIZE * SIZE + (SIZE * SIZE - 1 - tap)
        elif not LIFTING:
            position += g * SIZE * SIZE
        tiles = tiles + (tl.load(weight + in_field + out_field + position, mask=mask, other=0.0).to(tl.float32),)
    if LIFTING:
        # A tap that several elements leave alone is met as often.
        out = ()
        for g in tl.static_range(len(MATRICES)):
            out = out + (tiles[g] / stabiliser.to(tl.float32),)
        tiles = out
    return fourier(tiles, BUTTERFLIES)
