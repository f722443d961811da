"""The planar point groups: elements, products, and their action on images, feature maps and filter banks.

`csrc/group_tables.h` states the same for the compiled kernels; a test holds the two together.  Nobody else in the
package writes a rotation by hand, but sampled_groups.py those by any angle.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

# Every element is r^turns · m^mirrored: mirror first, then turn.  A group is its list of (turns, mirrored).
_ELEMENTS = {
    "C1": ((0, False),),
    "C2": ((0, False), (2, False)),
    "C4": ((0, False), (1, False), (2, False), (3, False)),
    "D1": ((0, False), (0, True)),
    "D2": ((0, False), (2, False), (0, True), (2, True)),
    "D4": tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}
_ALIASES = {"p4": "C4", "p4m": "D4"}
_Matrix = tuple[tuple[int, ...], ...]
_TURN = ((0, -1), (1, 0))  # (row, column) -> (-column, row): counter-clockwise as displayed
_MIRROR = ((1, 0), (0, -1))


def _multiply(a: _Matrix, b: _Matrix) -> _Matrix:
    return tuple(tuple(sum(a[i][k] * b[k][j] for k in range(2)) for j in range(2)) for i in range(2))


def _matrix(turns: int, mirrored: bool) -> _Matrix:
    matrix: _Matrix = ((1, 0), (0, 1))
    for _ in range(turns):
        matrix = _multiply(_TURN, matrix)
    return _multiply(matrix, _MIRROR) if mirrored else matrix


class PointGroup:
    """A finite group of rotations and reflections that maps the pixel grid onto itself.

    Args:
        name: one of "C1", "C2", "C4", "D1", "D2", "D4"; "p4" and "p4m" are other names of "C4" and "D4".

    Attributes:
        name: the name without alias.
        order: |P|, the number of elements.
        matrices: int64 tensor [|P|, 2, 2], acting on (row, column) offsets from the centre.
        product: int64 tensor [|P|, |P|], the index of g·h.
        inverse: int64 tensor [|P|], the index of g⁻¹.

    Element k of C4 is r^k, where r acts on an image as ``torch.rot90(image, 1, (-2, -1))``; the mirror m is
    ``torch.flip(image, (-1,))``.  D4 lists r^0 … r^3, then r^0 m … r^3 m.  C2 = {e, r²}, D1 = {e, m},
    D2 = {e, r², m, r² m}.

    Raises:
        TypeError: `name` is not a string.
        ValueError: no such group.
    """

    def __init__(self, name: str):
        if not isinstance(name, str):
            raise TypeError(f"PointGroup: name must be a str, got {type(name).__name__}")
        canonical = _ALIASES.get(name, name)
        if canonical not in _ELEMENTS:
            raise ValueError(f"PointGroup: unknown group {name!r}; expected one of {', '.join((*_ELEMENTS, *_ALIASES))}")
        self.name = canonical
        self._moves = _ELEMENTS[canonical]
        self.order = len(self._moves)
        matrices = [_matrix(*move) for move in self._moves]
        self._product = tuple(tuple(matrices.index(_multiply(a, b)) for b in matrices) for a in matrices)
        self._inverse = tuple(row.index(0) for row in self._product)
        self.matrices = torch.tensor(matrices)
        self.product = torch.tensor(self._product)
        self.inverse = torch.tensor(self._inverse)

    @property
    def has_quarter_turn(self) -> bool:
        """Whether some element exchanges rows and columns."""
        return any(turns % 2 for turns, _ in self._moves)

    def moved_tap(self, g: int, tap: int, size: int) -> int:
        """The tap g·s of a size × size kernel, counted along rows."""
        row, column = (2 * at - (size - 1) for at in divmod(tap, size))  # from the centre, doubled
        (a, b), (c, d) = _matrix(*self._moves[g])
        return (a * row + b * column + size - 1) // 2 * size + (c * row + d * column + size - 1) // 2

    @functools.lru_cache  # noqa: B019 (there are six groups)
    def tap_orbits(self, size: int) -> tuple[int, ...]:
        """The first tap of each orbit that the group makes of the taps of a size × size kernel."""
        firsts = (min(self.moved_tap(g, tap, size) for g in range(self.order)) for tap in range(size**2))
        return tuple(sorted(set(firsts)))

    def __repr__(self) -> str:
        return f"PointGroup({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PointGroup) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[type[PointGroup], tuple[str]]:
        return PointGroup, (self.name,)


_GROUPS = {name: PointGroup(name) for name in (*_ELEMENTS, *_ALIASES)}


def as_group(group: PointGroup | str) -> PointGroup:
    """`group` itself, or the group of that name.  Errors as for PointGroup."""
    if isinstance(group, PointGroup):
        return group
    if isinstance(group, str):
        return _GROUPS[group] if group in _GROUPS else PointGroup(group)  # the constructor words the error
    raise TypeError(f"group must be a PointGroup or its name, got {type(group).__name__}")


def _check_element(name: str, x: Tensor, group: PointGroup, g: int, dim: int) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: x must be a tensor, got {type(x).__name__}")
    if x.dim() != dim:
        raise ValueError(f"{name}: x must have {dim} dimensions, got shape {tuple(x.shape)}")
    if not hasattr(g, "__index__"):
        raise TypeError(f"{name}: g must be an int, got {type(g).__name__}")
    if not 0 <= g < group.order:
        raise ValueError(f"{name}: g must be an element index of {group.name}, 0 to {group.order - 1}, got {g}")


def move_space(x: Tensor, group: PointGroup, g: int) -> Tensor:
    """(g·x)[…, p] = x[…, g⁻¹p] on the last two dimensions."""
    turns, mirrored = group._moves[g]
    return torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))


def move_feature_map(x: Tensor, group: PointGroup, g: int) -> Tensor:
    """(g·x)[…, h, p] = x[…, g⁻¹h, g⁻¹p] on the last three dimensions."""
    permutation = group._product[group._inverse[g]]
    return move_space(torch.stack([x.select(-3, h) for h in permutation], dim=-3), group, g)


def transform_image(x: Tensor, group: PointGroup | str, g: int) -> Tensor:
    """Applies element g to images: (g·x)[b, c, p] = x[b, c, g⁻¹p].

    Args:
        x: [B, C, H, W].  Offsets p are measured from the centre of the image.
        group: a PointGroup or its name.
        g: index of the element.

    Returns:
        [B, C, H, W], with H and W exchanged by a quarter turn.

    Raises:
        TypeError, ValueError: x is no tensor of four dimensions, the group is unknown, or g is out of range.
    """
    group = as_group(group)
    _check_element("transform_image", x, group, g, dim=4)
    return move_space(x, group, g)


def transform_feature_map(x: Tensor, group: PointGroup | str, g: int) -> Tensor:
    """Applies element g to feature maps: space moves, and the group axis is permuted by left multiplication,
    (g·x)[b, c, h, p] = x[b, c, g⁻¹h, g⁻¹p].

    Args:
        x: [B, C, |P|, H, W].
        group: a PointGroup or its name.
        g: index of the element.

    Returns:
        [B, C, |P|, H, W], with H and W exchanged by a quarter turn.

    Raises:
        TypeError, ValueError: x is no tensor of five dimensions with |P| as the third, the group is unknown, or g is
            out of range.
    """
    group = as_group(group)
    _check_element("transform_feature_map", x, group, g, dim=5)
    if x.shape[2] != group.order:
        raise ValueError(
            f"transform_feature_map: x must have {group.order} elements of {group.name} in dimension 2, "
            f"got shape {tuple(x.shape)}"
        )
    return move_feature_map(x, group, g)
