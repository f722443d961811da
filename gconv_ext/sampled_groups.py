"""Elements sampled from the planar groups with continuous rotations: SE(2), E(2), the mirror alone, translations alone.

An element is R_φ · m^s (mirror first, then turn), as in groups.py: R_¼ is r, a quarter turn counter-clockwise as
displayed, and angles are counted in turns.  A set of elements is a list of n rotations R_φᵢ, then, where the set has
mirrors, the n elements m·R_φᵢ = R_{-φᵢ}·m.  So whatever the angles, a set with mirrors is a union of right cosets P·R_φ
of P = D1, and where the angles are the whole circle in a multiple of 2 or 4 equal steps, of C2, C4, D2 or D4: a
convolution between two such sets is one over P with a field for each coset.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# name -> (has rotations, has mirrors).  All kernels know the relative angle, so that weights fit from T2 to SE2.
GROUPS = {"T2": (False, False), "SE2": (True, False), "D1": (False, True), "E2": (True, True)}
_SEAM = 1e-6  # turns; an angle this close to half a turn counts as minus half a turn, whichever way it was rounded


def check_group(group: object) -> str:
    if not isinstance(group, str):
        raise TypeError(f"group must be a str, got {type(group).__name__}")
    if group not in GROUPS:
        raise ValueError(f"group must be one of {', '.join(map(repr, GROUPS))}, got {group!r}")
    return group


class Elements(NamedTuple):
    """A sampled set of group elements; N = rotations · (1 + mirrors).

    Attributes:
        turns: [N]; φ of each element R_φ · m^s, in turns.
        rotations: n, how many elements have no mirror; the others follow them.
        mirrors: whether the set has mirrored elements.
        circle: whether the n angles are the whole circle in equal steps, φᵢ = φ₀ + i / n, in this order.
        extent: scalar tensor; the share of the circle that the angles were drawn from.
        weights: [N], ones and zeros, or None for ones: the elements that were kept.  They carry the gradient of the
            probabilities; what has weight 0 is there for that gradient alone.
    """

    turns: Tensor
    rotations: int
    mirrors: bool
    circle: bool
    extent: Tensor
    weights: Tensor | None = None

    @property
    def signs(self) -> Tensor:
        """[N]; −1 for the mirrored elements."""
        plain = torch.ones_like(self.turns[: self.rotations])
        return torch.cat([plain, -plain]) if self.mirrors else plain


def with_mirrors(turns: Tensor, circle: bool) -> Tensor:
    """Angles of R_φᵢ, followed by those of the mirrored elements m·R_φᵢ = R_{-φᵢ}·m.

    They are listed so that C4's angles give D4 in the order of groups.py; `partners` knows which is whose.
    """
    return torch.cat([turns, -turns[partners(len(turns), circle)]])


def partners(rotations: int, circle: bool) -> list[int]:
    """i ↦ the place of m·R_φᵢ among the mirrored elements; its own inverse."""
    return [(-i if circle else -1 - i) % rotations for i in range(rotations)]


def common_point_group(*sets: Elements) -> str:
    """The largest point group of which all sets are unions of right cosets, as groups.py names it.

    Turns count only where no gradient is to reach the angles: an angle that moves takes its coset apart.
    """
    turns = 1
    if all(s.circle and not (s.turns.requires_grad and torch.is_grad_enabled()) for s in sets):
        turns = next(k for k in (4, 2, 1) if all(s.rotations % k == 0 for s in sets))
    return ("D" if all(s.mirrors for s in sets) else "C") + str(turns)


def coset_order(elements: Elements, point_group: str) -> list[int]:
    """Places of the elements g·R_φ, coset by coset, and in each coset in the order of the point group's elements g."""
    n, turns = elements.rotations, int(point_group[1])
    step = n // turns
    if point_group[0] == "D":
        partner = partners(n, elements.circle)
        return [i for a in range(step) for i in (
            *(a + k * step for k in range(turns)), *(n + (partner[a] + k * step) % n for k in range(turns))
        )]  # fmt: skip
    halves = (0, n) if elements.mirrors else (0,)
    return [first + a + k * step for first in halves for a in range(step) for k in range(turns)]


def relative_coordinates(turns: Tensor, signs: Tensor, others: Elements) -> Tensor:
    """Coordinates of u⁻¹v, with u = (turns, signs) [A] and v the other elements [N].

        u⁻¹v = R_{s_u (φ_v − φ_u)} · m^{s_u s_v}

    Returns:
        [A, N, 2]: the angle in half turns, in [−1, 1), and the sign.
    """
    angle = signs[:, None] * (others.turns - turns[:, None])
    angle = angle - (angle + 0.5 + _SEAM).floor()
    return torch.stack([2 * angle, signs[:, None] * others.signs], dim=-1)


def moved_back(taps: Tensor, turns: Tensor, signs: Tensor) -> Tensor:
    """u⁻¹t for every u = (turns, signs) [A] and tap t [T, 2] = (row, column) offsets from the centre: [A, T, 2]."""
    angle = 2 * torch.pi * turns[:, None]
    cos, sin, (rows, columns) = angle.cos(), angle.sin(), taps.unbind(-1)
    return torch.stack([cos * rows + sin * columns, signs[:, None] * (cos * columns - sin * rows)], dim=-1)
