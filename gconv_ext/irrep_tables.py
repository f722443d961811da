"""Fourier transforms over the point groups as tables, for the Triton kernels.

`csrc/irrep_tables.h` states the same for the compiled kernels and says why the order of the butterflies matters; a test
holds the two together, and another checks them against the group's definition.
"""

from __future__ import annotations

from typing import NamedTuple


class Irrep(NamedTuple):
    """One real irreducible representation ρ.

    Attributes:
        dim: of ρ, 1 or 2.
        complex_type: ρ is [[re, -im], [im, re]], of which only the first column is computed (C4's rotations).
        plane: plane[i][j] is where the transform leaves Σ_g f[g] ρ(g)[i][j].
    """

    dim: int
    complex_type: bool
    plane: tuple[tuple[int, ...], ...]


class FourierTable(NamedTuple):
    """The Fourier transform over one group, on |P| numbers in the group's element order.

    Attributes:
        order: |P|.
        butterflies: (a, b, turned) each: (f[a], f[b]) becomes (f[a] + f[b], f[a] - f[b]), or (…, f[b] - f[a]) when turned.
        irreps: where the coefficients lie afterwards.
    """

    order: int
    butterflies: tuple[tuple[int, int, bool], ...]
    irreps: tuple[Irrep, ...]

    @property
    def products(self) -> tuple[tuple[int, int, int, bool], ...]:
        """(y, x, ψ, negated) each: plane y of ŷ(ρ) = X̂(ρ) Ψ̂(ρ)ᵀ gains plane x of X̂ times plane ψ of Ψ̂, or minus that.
        Planes that the group exchanges gain their products in the same order, which keeps equivariance exact."""
        terms = []
        for irrep in self.irreps:
            plane = irrep.plane
            if irrep.complex_type:
                (re, im), _ = plane
                terms += [(re, re, re, False), (im, im, re, False), (re, im, im, False), (im, re, im, True)]
            else:
                side = range(irrep.dim)
                terms += [(plane[i][j], plane[i][k], plane[j][k], False) for k in side for i in side for j in side]
        return tuple(terms)

    @property
    def inverse_scales(self) -> tuple[float, ...]:
        """What each coefficient is multiplied by on the way back, a power of two; then come the butterflies transposed, the
        last first."""
        scales = [0.0] * self.order
        for g in range(self.order):
            f = [float(h == g) for h in range(self.order)]
            for a, b, turned in self.butterflies:
                f[a], f[b] = f[a] + f[b], f[b] - f[a] if turned else f[a] - f[b]
            scales = [scale + number**2 for scale, number in zip(scales, f)]
        return tuple(1 / scale for scale in scales)


def _scalar(plane: int) -> Irrep:
    return Irrep(1, False, ((plane, 0), (0, 0)))


def _steps(*pairs: tuple[int, int]) -> tuple[tuple[int, int, bool], ...]:
    return tuple((a, b, False) for a, b in pairs)


_C2 = FourierTable(2, _steps((0, 1)), (_scalar(0), _scalar(1)))
_TABLES = {
    "C1": FourierTable(1, (), (_scalar(0),)),
    "C2": _C2,
    "D1": _C2,
    "C4": FourierTable(4, _steps((0, 2), (1, 3), (0, 1)), (_scalar(0), _scalar(1), Irrep(2, True, ((2, 3), (3, 2))))),
    "D2": FourierTable(4, _steps((0, 1), (2, 3), (0, 2), (1, 3)), tuple(map(_scalar, range(4)))),
    "D4": FourierTable(
        8,
        (*_steps((0, 2), (1, 3), (0, 1), (4, 6), (5, 7), (4, 5), (0, 4), (1, 5), (2, 6)), (3, 7, True)),
        (*map(_scalar, (0, 1, 4, 5)), Irrep(2, False, ((2, 7), (3, 6)))),
    ),
}


def fourier_table(group: str) -> FourierTable:
    """The table of the group of that name."""
    return _TABLES[group]
