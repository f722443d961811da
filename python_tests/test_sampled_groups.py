import math

import torch

from gconv_ext import PointGroup
from gconv_ext.nn import ElementDistribution
from gconv_ext.sampled_groups import common_point_group, coset_order, moved_back, relative_coordinates

SETS = [*((group, n) for group in ("SE2", "E2") for n in (8, 6, 4, 3, 1)), ("D1", 1), ("T2", 1)]
LISTED = [("SE2", 4, "C4"), ("SE2", 2, "C2"), ("E2", 4, "D4"), ("E2", 2, "D2"), ("D1", 1, "D1"), ("T2", 1, "C1")]


def matrices(turns, signs):
    """[N, 2, 2] on (row, column): mirror first, then turn."""
    cos, sin = (2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()
    return torch.stack([cos, -sin * signs, sin, cos * signs], dim=-1).unflatten(-1, (2, 2))


def sample(group, elements, **options):
    training = options.pop("training", True)
    return ElementDistribution(group, elements, dtype=torch.float64, **options).train(training)()


def draws():
    for group, n in SETS:
        yield sample(group, n, learned=False)
        distribution = ElementDistribution(group, n, learned=True, dtype=torch.float64)
        if distribution.theta is not None:
            distribution.theta.data.fill_(0.55)
        yield distribution()


def test_elements_of_a_point_group_are_listed_as_groups_py_lists_them():
    for group, n, name in LISTED:
        elements = sample(group, n, learned=False, training=False)
        assert torch.allclose(matrices(elements.turns, elements.signs), PointGroup(name).matrices.double(), atol=1e-12)


def test_relative_coordinates_are_those_of_the_product():
    for u in draws():
        for v in draws():
            angle, sign = relative_coordinates(u.turns, u.signs, v).unbind(-1)
            assert (angle >= -1 - 1e-5).all() and (angle < 1).all()
            want = matrices(u.turns, u.signs).inverse()[:, None] @ matrices(v.turns, v.signs)
            assert torch.allclose(matrices(angle / 2, sign), want, atol=1e-12)


def test_half_a_turn_has_one_coordinate_however_it_is_rounded():
    elements = sample("SE2", 2, learned=False, training=False)
    for rounding in (-1e-9, 0.0, 1e-9):
        turns = elements.turns + elements.turns.new_tensor([0, rounding])
        angle = relative_coordinates(turns, elements.signs, elements)[..., 0]
        assert (angle[[0, 1], [1, 0]] < -0.99).all()


def test_moved_back():
    taps = torch.randn(5, 2, dtype=torch.float64)
    for u in draws():
        want = torch.einsum("aij,tj->ati", matrices(u.turns, u.signs).inverse(), taps)
        assert torch.allclose(moved_back(taps, u.turns, u.signs), want, atol=1e-12)


def test_cosets():
    """A coset is g·R for the elements g of the point group in their order; together they are all elements."""
    seen = set()
    for u in draws():
        for v in draws():
            name = common_point_group(u, v)
            seen.add(name)
            for elements in (u, v):
                order = coset_order(elements, name)
                assert sorted(order) == list(range(len(elements.turns)))
                cosets = matrices(elements.turns, elements.signs)[order].unflatten(0, (-1, PointGroup(name).order))
                want = PointGroup(name).matrices.double() @ cosets[:, :1]
                assert torch.allclose(cosets, want, atol=1e-12)
    assert seen == {"C1", "C2", "C4", "D1", "D2", "D4"}


def test_a_gradient_to_the_angles_takes_turns_out_of_the_point_group():
    learned, fixed = sample("SE2", 4), sample("SE2", 4, learned=False)
    assert learned.circle and learned.turns.requires_grad
    assert common_point_group(fixed, learned) == "C1"
    with torch.no_grad():
        assert common_point_group(fixed, learned) == "C4"
