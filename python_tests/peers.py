"""escnn and e2cnn behind one face, for the tests that convert their networks."""

import functools
import math
import sys
import types
import warnings

import numpy as np
import pytest


class Peer:
    """`nn` is the peer's own; `space(group)` its G-space by the name of the group, "C-1" for all rotations."""

    def __init__(self, name: str, nn, gspaces, rotations: str, mirrored: str, mirror: str, trivial: str):
        self.name, self.nn = name, nn
        self._spaces = [getattr(gspaces, constructor) for constructor in (rotations, mirrored, mirror, trivial)]

    def space(self, group: str, axis: float = math.pi / 2):
        rotations, mirrored, mirror, trivial = self._spaces
        order = int(group[1:])
        if group[0] == "C":
            return trivial() if order == 1 else rotations(order) if order > 1 else rotations(-1, maximum_frequency=2)
        return mirrored(order, axis=axis) if order > 1 else mirror(axis=axis)

    def regular(self, space, fields: int):
        return self.nn.FieldType(space, fields * [space.regular_repr])

    def trivial(self, space, fields: int):
        return self.nn.FieldType(space, fields * [space.trivial_repr])


@functools.cache
def escnn() -> Peer:
    try:
        import lie_learn.representations.SO3.wigner_d  # noqa: F401
    except ImportError:
        # For SO(3) alone, and without a wheel for current releases of Python and NumPy.
        parts = ["lie_learn", "representations", "SO3", "wigner_d"]
        modules = {".".join(parts[: n + 1]): types.ModuleType(parts[n]) for n in range(len(parts))}
        modules[".".join(parts)].wigner_D_matrix = None
        sys.modules.update(modules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that py3nj, for SO(3) too, is missing
        pytest.importorskip(
            "escnn", reason="escnn is not installed: pip install joblib, then pip install --no-deps escnn"
        )
        from escnn import gspaces, nn
    return Peer("escnn", nn, gspaces, "rot2dOnR2", "flipRot2dOnR2", "flip2dOnR2", "trivialOnR2")


class _NumPy1:
    """NumPy as e2cnn, which was written for its first major release, calls it."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def array(values, copy=True, **options):
        return np.array(values, copy=copy or None, **options)


@functools.cache
def e2cnn() -> Peer:
    pytest.importorskip("e2cnn", reason="e2cnn is not installed: pip install e2cnn")
    from e2cnn import gspaces, nn
    from e2cnn.kernels import irreps_basis, utils

    utils.np = _NumPy1()

    def hash_of(basis):  # theirs calls ndarray.tostring, which NumPy 2.3 has removed
        arrays = (np.asarray(array).tobytes() for array in (basis.mu, basis.gamma))
        return hash((basis.in_irrep, basis.out_irrep, *arrays))

    for kind in vars(irreps_basis).values():
        if isinstance(kind, type) and vars(kind).get("__hash__") is not None:
            kind.__hash__ = hash_of
    return Peer("e2cnn", nn, gspaces, "Rot2dOnR2", "FlipRot2dOnR2", "Flip2dOnR2", "TrivialOnR2")


PEERS = {"escnn": escnn, "e2cnn": e2cnn}
