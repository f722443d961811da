"""How the channels of an escnn or e2cnn field type are permuted by the point groups of this package."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..groups import PointGroup
from .report import NotConverted

_GROUPS = [PointGroup(name) for name in ("D4", "C4", "D2", "C2", "D1", "C1")]  # of two subgroups, the first is taken
_ROW_COLUMN = np.array([[0, -1], [1, 0]])  # from (x, y), y upwards


class Subgroup(NamedTuple):
    """The part of a peer's group that this package works with.

    Attributes:
        group: its name here.
        elements: the peer's elements, in the order that `group` has.
    """

    group: PointGroup
    elements: list[Any]


def subgroup(gspace: Any) -> Subgroup:
    """The largest of this package's groups that a G-space holds.

    Raises:
        NotConverted: its group is continuous, or has no element in common with them but the identity.
    """
    elements = gspace.fibergroup.elements
    if elements is None:
        raise NotConverted(f"{gspace.fibergroup.name} is continuous")
    by_matrix = {}
    for element in elements:
        matrix = _ROW_COLUMN @ _plane_action(gspace, element) @ _ROW_COLUMN.T
        if np.allclose(matrix, matrix.round(), atol=1e-6):
            by_matrix[tuple(matrix.round().astype(int).flat)] = element
    for group in _GROUPS:
        matrices = [tuple(matrix) for matrix in group.matrices.flatten(1).tolist()]
        if all(matrix in by_matrix for matrix in matrices):
            break
    if group.order == 1 and len(elements) > 1:
        raise NotConverted(f"no rotation or mirror that this package knows is in {gspace.name}")
    return Subgroup(group, [by_matrix[matrix] for matrix in matrices])


def _plane_action(gspace: Any, element: Any) -> np.ndarray:
    """The matrix by which an element moves the points (x, y) of the plane."""
    if hasattr(gspace, "basespace_action"):  # escnn
        return np.asarray(gspace.basespace_action(element))
    flips = hasattr(gspace, "axis")
    mirrored, turns = element if isinstance(element, tuple) else (element, 0) if flips else (0, element)
    order = len(gspace.fibergroup.elements) // (2 if flips else 1)
    angle = 2 * np.pi * turns / order + (2 * gspace.axis if mirrored else 0)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return rotation @ np.diag([1, -1 if mirrored else 1])


class Fields(NamedTuple):
    """A field type as this package sees it.

    Attributes:
        regular: whether its channels are regular fields; else they are trivial ones, an image.
        order: the type's channels, in the order that this package has them: field by field, |P| each.
    """

    regular: bool
    order: list[int]


def fields(field_type: Any, subgroup: Subgroup) -> Fields | None:
    """How the subgroup permutes the channels; None where it does so in any other way."""
    orbits: list[list[int]] = []
    of_representation: dict[int, list[list[int]] | None] = {}
    start = 0
    for representation in field_type.representations:
        if id(representation) not in of_representation:
            of_representation[id(representation)] = _orbits(representation, subgroup)
        found = of_representation[id(representation)]
        if found is None:
            return None
        orbits += [[start + channel for channel in orbit] for orbit in found]
        start += representation.size
    lengths = {len(set(orbit)) for orbit in orbits}
    if lengths == {subgroup.group.order}:
        return Fields(True, [channel for orbit in orbits for channel in orbit])
    return Fields(False, [orbit[0] for orbit in orbits]) if lengths == {1} else None


def _orbits(representation: Any, subgroup: Subgroup) -> list[list[int]] | None:
    """For each orbit of the representation's channels, where each element moves the first of them; None where the
    elements do not permute the channels."""
    moved = []
    for element in subgroup.elements:
        matrix = np.asarray(representation(element))
        target = matrix.argmax(0)
        if not np.allclose(matrix, np.eye(len(matrix))[:, target], atol=1e-6):
            return None
        moved.append(target.tolist())
    orbits: list[list[int]] = []
    for first in range(representation.size):
        if not any(first in orbit for orbit in orbits):
            orbits.append([target[first] for target in moved])
    return orbits
