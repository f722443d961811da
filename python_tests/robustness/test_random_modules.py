"""Layers of random configurations against the reference: values and gradients."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gconv_ext import nn

# dtype: how far values and gradients may be from the reference in float64, of the largest
DTYPES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}
GROUPS = ("C1", "C2", "C4", "D1", "D2", "D4")
CONVOLUTIONS = (
    nn.LiftingConv2d, nn.GroupConv2d, nn.RelaxedLiftingConv2d, nn.RelaxedGroupConv2d, nn.GroupConvTranspose2d,
)  # fmt: skip


def rows(map):
    return map.contiguous()


def fields_last(map):
    if map.dim() == 4:
        return map.clone(memory_format=torch.channels_last)
    return map.flatten(1, 2).clone(memory_format=torch.channels_last).unflatten(1, map.shape[1:3])


def elements_apart(map):
    return map.clone(memory_format=torch.channels_last if map.dim() == 4 else torch.channels_last_3d)


def sliced(map):
    """A view of a larger map, whose other numbers are not."""
    larger = map.new_full((map.shape[0] + 1, *map.shape[1:-1], 2 * map.shape[-1]), torch.nan)
    view = larger[1:, ..., ::2]
    return view.copy_(map)


def turned(map):
    """Rows and columns exchanged in memory."""
    return map.mT.contiguous().mT


FORMATS = (rows, fields_last, elements_apart, sliced, turned)


@st.composite
def configurations(draw):
    """A layer with the reference, the shape of its input, and algorithm, memory format and dtype to compare."""
    kind, group = draw(st.sampled_from(CONVOLUTIONS)), draw(st.sampled_from(GROUPS))
    groups, k = draw(st.integers(1, 2)), draw(st.integers(1, 4))
    in_fields, out_fields = (groups * draw(st.integers(1, 3)) for _ in range(2))
    dilation, padding = draw(st.integers(1, 2)), draw(st.integers(0, 2))
    options = dict(group=group, groups=groups, padding=padding, dilation=dilation, bias=draw(st.booleans()))
    options["stride"] = stride = draw(st.integers(1, 3))
    reach = dilation * (k - 1) + 1
    least = max(1, reach - 2 * padding, padding + 1)  # what can be reflected is larger than the padding
    if kind is nn.GroupConvTranspose2d:
        options["output_padding"] = draw(st.integers(0, stride - 1))
        least = max(1, -(-(2 * padding + 1 - reach) // stride) + 1)
    else:
        options["padding_mode"] = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
        options["activation"] = draw(st.sampled_from([None, "relu"]))
    if kind in (nn.RelaxedLiftingConv2d, nn.RelaxedGroupConv2d):
        options["num_filter_banks"] = draw(st.integers(1, 3))
    if kind is nn.RelaxedGroupConv2d:
        options["relax_on"] = draw(st.sampled_from(["input", "output"]))
    size = tuple(draw(st.integers(least, least + 6)) for _ in range(2))
    layer = kind(in_fields, out_fields, k, dtype=torch.float64, algorithm="reference", **options)
    elements = () if "Lifting" in kind.__name__ else (layer.group.order,)
    shape = (draw(st.integers(0, 3)), in_fields, *elements, *size)
    algorithm, arranged = draw(st.sampled_from(["irrep", "dense", "auto"])), draw(st.sampled_from(FORMATS))
    return layer, shape, algorithm, arranged, draw(st.sampled_from(list(DTYPES)))


def run(layer, x):
    """The result and the gradients to the map and to the parameters."""
    x = x.detach().requires_grad_()
    y = layer(x)
    return [y, *torch.autograd.grad(y, [x, *layer.parameters()], torch.ones_like(y))]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(configurations())
def test_against_the_reference(configuration):
    layer, shape, algorithm, arranged, dtype = configuration
    torch.manual_seed(0)
    for parameter in layer.parameters():
        parameter.data.normal_()
        parameter.data = parameter.data.to(dtype).double()  # what the type can hold
    x = torch.randn(shape, dtype=dtype)
    if dtype != torch.float64:
        layer.activation = None  # a number close to 0 may fall on either side
    want = run(layer, x.double())
    other = copy.deepcopy(layer).to(dtype)
    other.algorithm = algorithm
    got = run(other, arranged(x))
    assert got[0].dtype == dtype and len(got) == len(want)
    for one, exact in zip(got, want):
        assert one.shape == exact.shape
        assert not one.numel() or (one.double() - exact).abs().max() <= DTYPES[dtype] * max(1, exact.abs().max())


@pytest.mark.parametrize("arranged", FORMATS)
def test_the_formats_are_what_they_say(arranged):
    for x in (torch.randn(2, 3, 5, 6), torch.randn(2, 3, 4, 5, 6)):
        assert torch.equal(arranged(x), x) and (arranged(x).is_contiguous() == (arranged is rows))
