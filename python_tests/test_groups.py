import copy
import pickle

import pytest
import torch

from gconv_ext import PointGroup, transform_feature_map, transform_image


def test_tables_agree_with_the_compiled_ones(group):
    from gconv_ext import _build_info

    matrices, product, inverse = _build_info.group_tables()[group.name]
    assert group.matrices.tolist() == matrices
    assert group.product.tolist() == product
    assert group.inverse.tolist() == inverse
    assert set(_build_info.group_tables()) == {"C1", "C2", "C4", "D1", "D2", "D4"}


def test_tables_are_a_group(group):
    m, product, inverse = group.matrices, group.product, group.inverse
    assert m.shape == (group.order, 2, 2) and m[0].tolist() == [[1, 0], [0, 1]]
    assert len({str(e.tolist()) for e in m}) == group.order
    assert torch.equal(m[product], torch.einsum("gij,hjk->ghik", m, m))
    assert product[torch.arange(group.order), inverse].tolist() == [0] * group.order


@pytest.mark.parametrize(
    "name, moves",
    {
        "C4": [(0, 0), (1, 0), (2, 0), (3, 0)],
        "D4": [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (2, 1), (3, 1)],
        "C2": [(0, 0), (2, 0)],
        "D1": [(0, 0), (0, 1)],
        "D2": [(0, 0), (2, 0), (0, 1), (2, 1)],
    }.items(),
)
def test_elements_are_in_the_promised_order(name, moves):
    x = torch.randn(2, 3, 4, 5)
    for g, (turns, mirrored) in enumerate(moves):
        expected = torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))
        assert torch.equal(transform_image(x, name, g), expected)


def test_image_moves_as_the_matrices_say(group):
    """(g·x)[p] = x[g⁻¹p], pixel by pixel, on a map that is not square."""
    x = torch.arange(20.0).view(1, 1, 4, 5)
    for g in range(group.order):
        moved = transform_image(x, group, g)[0, 0]
        back = group.matrices[group.inverse[g]]
        rows, columns = moved.shape
        assert {rows, columns} == {4, 5}
        for i in range(rows):
            for j in range(columns):
                r, c = (back @ torch.tensor([2 * i - rows + 1, 2 * j - columns + 1])).tolist()
                assert moved[i, j] == x[0, 0, (r + 3) // 2, (c + 4) // 2]


def test_feature_map_permutes_by_left_multiplication(group):
    x = torch.randn(2, 3, group.order, 4, 5)
    for g in range(group.order):
        moved = transform_feature_map(x, group, g)
        for h in range(group.order):
            source = group.product[group.inverse[g], h]
            assert torch.equal(moved[:, :, h], transform_image(x[:, :, source], group, g))


def test_the_action_is_a_homomorphism(group):
    x = torch.randn(1, 2, group.order, 5, 4)
    for g in range(group.order):
        for h in range(group.order):
            both = transform_feature_map(transform_feature_map(x, group, h), group, g)
            assert torch.equal(both, transform_feature_map(x, group, int(group.product[g, h])))


def test_aliases_equality_and_copies():
    assert PointGroup("p4") == PointGroup("C4") and PointGroup("p4m").name == "D4"
    assert PointGroup("C4") != PointGroup("D4") and len({PointGroup("p4"), PointGroup("C4")}) == 1
    for other in (pickle.loads(pickle.dumps(PointGroup("D4"))), copy.deepcopy(PointGroup("D4"))):
        assert other == PointGroup("D4") and torch.equal(other.product, PointGroup("D4").product)
    assert repr(PointGroup("p4m")) == "PointGroup('D4')"


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda: PointGroup("C3"), "unknown group 'C3'; expected one of C1, C2, C4"),
        (lambda: transform_image(torch.ones(2, 3), "C4", 0), "must have 4 dimensions, got shape (2, 3)"),
        (lambda: transform_image(torch.ones(1, 1, 2, 2), "C4", 4), "0 to 3, got 4"),
        (lambda: transform_feature_map(torch.ones(1, 1, 3, 2, 2), "C4", 0), "4 elements of C4 in dimension 2"),
        (lambda: transform_image(torch.ones(1, 1, 2, 2), "X", 0), "unknown group 'X'"),
    ],
)
def test_bad_values(function, message):
    with pytest.raises(ValueError) as error:
        function()
    assert message in str(error.value)


@pytest.mark.parametrize("function", [lambda: PointGroup(4), lambda: transform_image(torch.ones(1, 1, 2, 2), 4, 0), lambda: transform_image([[1]], "C4", 0)])
def test_bad_types(function):
    with pytest.raises(TypeError):
        function()


@pytest.mark.parametrize("group, size, orbits", [("C1", 3, 9), ("C4", 3, 3), ("C4", 2, 1), ("D1", 3, 6), ("C2", 5, 13), ("D4", 5, 6), ("D4", 1, 1)])
def test_tap_orbits(group, size, orbits):
    firsts = PointGroup(group).tap_orbits(size)
    assert len(firsts) == orbits
    moved = [{PointGroup(group).moved_tap(g, tap, size) for g in range(PointGroup(group).order)} for tap in firsts]
    assert sorted(tap for orbit in moved for tap in orbit) == list(range(size**2)), "each tap is in one orbit"
