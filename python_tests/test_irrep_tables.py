import pytest
import torch

from gconv_ext import _build_info
from gconv_ext.irrep_tables import fourier_table


def transform(table, f):
    f = list(f)
    for a, b, turned in table.butterflies:
        f[a], f[b] = f[a] + f[b], f[b] - f[a] if turned else f[a] - f[b]
    return f


def invert(table, planes):
    f = [scale * plane for scale, plane in zip(table.inverse_scales, planes)]
    for a, b, turned in reversed(table.butterflies):
        f[a], f[b] = (f[a] - f[b], f[a] + f[b]) if turned else (f[a] + f[b], f[a] - f[b])
    return f


def test_a_correlation_over_the_group(group):
    """The tables against y[u] = Σ_k Ψ[k] X[u·k]."""
    table = fourier_table(group.name)
    x, filter = torch.randn(2, group.order).double()
    want = (filter * x[group.product]).sum(1)
    y, x_planes, filter_planes = [0.0] * group.order, transform(table, x), transform(table, filter)
    for to, a, b, negated in table.products:
        y[to] += (-1) ** negated * x_planes[a] * filter_planes[b]
    assert torch.allclose(torch.stack(invert(table, y)), want)
    assert torch.allclose(torch.stack(invert(table, x_planes)), x)


def test_the_group_permutes_and_negates_the_planes(group):
    """f[g⁻¹·] has the same coefficients to order and sign, or within an irrep; so exactness can hold at all."""
    table = fourier_table(group.name)
    f = torch.arange(1.0, group.order + 1) ** 3
    planes = torch.stack(transform(table, f)).abs().sort().values
    for g in range(group.order):
        moved = torch.stack(transform(table, f[group.product[group.inverse[g]]]))
        assert torch.equal(moved.abs().sort().values, planes)


@pytest.mark.parametrize("name", _build_info.irrep_tables())
def test_the_compiled_tables_are_the_same(name):
    table = fourier_table(name)
    assert _build_info.irrep_tables()[name] == (table.butterflies, table.products, table.inverse_scales)
