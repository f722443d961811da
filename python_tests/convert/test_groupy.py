"""Layers in GrouPy's style: a stand-in that follows the published definition tap by tap is the reference."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import gconv_ext
from gconv_ext import nn as gnn


def matrix(element):
    """Of GrouPy's element 4m + r on (row, column), as its D4 array says: row 0 negated for m = 1."""
    m, r = divmod(element, 4)
    cosine, sine = (1, 0, -1, 0)[r], (0, 1, 0, -1)[r]
    sign = (-1) ** m
    return torch.tensor([[sign * cosine, -sign * sine], [sine, cosine]])


class SplitGConv2D(torch.nn.Module):
    """y[o, g] = Σ_c Σ_h Σ_t w[o, c, g⁻¹h, g⁻¹t] · x[c, h, p + t], g and h counted as GrouPy does."""

    in_elements: int
    elements: int

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, bias=True):
        super().__init__()
        self.weight = torch.nn.Parameter(
            torch.randn(out_channels, in_channels, self.in_elements, kernel_size, kernel_size)
        )
        self.bias = torch.nn.Parameter(torch.randn(out_channels)) if bias else None
        self.stride, self.padding = (stride, stride), (padding, padding)

    def forward(self, x):
        out_channels, in_channels, _, k, _ = self.weight.shape
        matrices = [matrix(element) for element in range(self.elements)]
        dense = self.weight.new_zeros(out_channels, self.elements, in_channels, self.in_elements, k, k)
        for g, h, i, j in itertools.product(range(self.elements), range(self.in_elements), range(k), range(k)):
            inverse = matrices[g].T
            relative = inverse @ matrices[h]
            source = 0 if self.in_elements == 1 else next(n for n, m in enumerate(matrices) if m.equal(relative))
            a, b = ((inverse @ torch.tensor([2 * i - k + 1, 2 * j - k + 1]) + k - 1) // 2).tolist()
            dense[:, g, :, h, i, j] = self.weight[:, :, source, a, b]
        dense = dense.flatten(2, 3).flatten(0, 1)
        y = F.conv2d(x.reshape(len(x), -1, *x.shape[-2:]), dense, None, self.stride, self.padding)
        y = y.unflatten(1, (out_channels, self.elements))
        return y if self.bias is None else y + self.bias.view(-1, 1, 1, 1)


class P4ConvZ2(SplitGConv2D):
    in_elements, elements = 1, 4


class P4ConvP4(SplitGConv2D):
    in_elements, elements = 4, 4


class P4MConvZ2(SplitGConv2D):
    in_elements, elements = 1, 8


class P4MConvP4M(SplitGConv2D):
    in_elements, elements = 8, 8


class PlaneGroupSpatialMaxPool(torch.nn.Module):
    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x):
        return F.max_pool2d(x.flatten(1, 2), self.kernel_size, self.stride, self.padding).unflatten(1, x.shape[1:3])


KINDS = [P4ConvZ2, P4ConvP4, P4MConvZ2, P4MConvP4M]


def shape(kind, size=7):
    return (2, 3, size, size) if kind.in_elements == 1 else (2, 3, kind.in_elements, size, size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{"kernel_size": 3}, {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False}], ids=str
)
def test_convolution(kind, options):
    conv = kind(3, 2, **options).double()
    fast, report = gconv_ext.convert(conv)
    (row,) = report.rows
    assert type(row.layer) is (gnn.LiftingConv2d if kind.in_elements == 1 else gnn.GroupConv2d)
    assert row.layer.group.order == kind.elements
    x = torch.randn(shape(kind)).double().requires_grad_()
    want, got = conv(x), fast(x)
    assert got.shape == want.shape and torch.allclose(got, want, rtol=0, atol=1e-12)
    dy = torch.randn_like(want)
    for a, b in zip(torch.autograd.grad(got, [x], dy), torch.autograd.grad(want, [x], dy)):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kinds", [KINDS[:2], KINDS[2:]], ids=["p4", "p4m"])
def test_network(kinds):
    """Beside the batch normalisation of PyTorch, which GrouPy's users take, and with all converted but that."""
    lift, conv = kinds
    slow = torch.nn.Sequential(
        lift(3, 4, 3), torch.nn.BatchNorm3d(4), torch.nn.ReLU(), PlaneGroupSpatialMaxPool(2), conv(4, 4, 3, padding=1),
        torch.nn.BatchNorm3d(4), torch.nn.ReLU(), torch.nn.Flatten(2), torch.nn.AdaptiveAvgPool1d(1),
    )  # fmt: skip
    fast, report = gconv_ext.convert(slow)
    assert [row.path for row in report.converted] == ["0", "3", "4"]
    assert isinstance(fast[3], gnn.SpatialMaxPool2d)
    x = torch.randn(4, 3, 8, 8)
    for _ in range(2):  # statistics of the first step take part in none, and are carried on
        assert torch.allclose(fast(x), slow(x), rtol=1e-4, atol=1e-5)
    assert torch.allclose(fast.eval()(x), slow.eval()(x), rtol=1e-4, atol=1e-5)
    fast(x).sum().backward()
    assert all(parameter.grad is not None for parameter in fast.parameters())


def test_other_layers_of_the_same_name_are_kept():
    """A layer that turns its filters the other way has the same name and shapes, and other outputs."""

    class P4ConvP4(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(2, 2, 4, 3, 3))
            self.bias, self.stride, self.padding = None, 1, 1

        def forward(self, x):
            return gconv_ext.functional.group_conv2d(x, self.weight.flip(-1), group="C4", padding=1)

    (row,) = gconv_ext.convert(P4ConvP4())[1].rows
    assert not row.converted and row.note.startswith("its outputs are not those of GrouPy's layer: they differ by ")


@pytest.mark.parametrize("spoil, why", [
    (lambda conv: setattr(conv, "weight", torch.nn.Parameter(torch.ones(2, 2, 3, 3))), "its weight is not [out, in, 4, k, k]"),
    (lambda conv: delattr(conv, "stride"), "no attribute 'stride'"),
    (lambda conv: setattr(conv, "padding", (0, 1)), "padding must be the same for rows and columns"),
])  # fmt: skip
def test_what_is_not_as_groupy_has_it(spoil, why):
    conv = P4ConvP4(2, 2, 3)
    spoil(conv)
    (row,) = gconv_ext.convert(conv)[1].rows
    assert not row.converted and why in row.note


def test_frozen_and_in_half_precision():
    fast, report = gconv_ext.convert(P4MConvP4M(2, 2, 3).bfloat16().requires_grad_(False))
    assert report.converted
    assert {(p.dtype, p.requires_grad) for p in fast.parameters()} == {(torch.bfloat16, False)}


def test_a_class_of_the_same_name_is_kept():
    class P4ConvZ2(torch.nn.Module):
        stride, padding, bias = 1, 0, None

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(2, 3, 1, 3, 3))

        def forward(self, x):
            raise RuntimeError("points expected")

    kept, report = gconv_ext.convert(torch.nn.Sequential(P4ConvZ2()))
    assert type(kept[0]) is P4ConvZ2 and report.kept[0].note == "it does not take GrouPy's maps: points expected"
