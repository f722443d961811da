"""How maps lie in memory, and that nothing between two convolutions, forward or backward, changes it."""

import cases
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from gconv_ext import autograd, create_model, functional, memory_format, nn, ops

GPU = torch.cuda.is_available()
FORMATS = {
    "rows": lambda map: map.contiguous(),
    "planes last": lambda map: map.flatten(1, -3).clone(memory_format=torch.channels_last).unflatten(1, map.shape[1:-2]),
    "fields last": lambda map: map.clone(memory_format=torch.channels_last_3d),
}
# 1 x 1 pixel lies as rows do in every format.
SHAPES = [(2, 3, 4, 5, 6), (2, 1, 4, 5, 6), (2, 3, 4, 1, 6), (1, 3, 4, 5, 1), (1, 3, 2, 1, 1)]


def strides(format, map):
    return FORMATS[format](map).stride()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("new", FORMATS)
@pytest.mark.parametrize("format", FORMATS)
def test_in_format(format, new, shape):
    x = torch.randn(shape, dtype=torch.float64)
    map = FORMATS[format](x)
    got = memory_format.in_format(map, new)
    assert torch.equal(got, x)
    if min(shape[1], *shape[3:]) > 1:
        assert got.stride() == strides(new, x) and (got is map) == (format == new)
        assert memory_format.format_of(map) == format and memory_format.format_of(got) == new
    assert torch.equal(torch.vmap(lambda map: memory_format.in_format(map, new))(map[None])[0], x)
    assert torch.autograd.gradcheck(lambda map: memory_format.in_format(map, new), [map.requires_grad_()], fast_mode=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format", FORMATS)
def test_planes(format, shape):
    map = FORMATS[format](torch.randn(shape))
    planes = memory_format.planes_of(map)
    assert torch.equal(planes, map.contiguous().flatten(1, 2))
    pooled = memory_format.by_planes(lambda planes: torch.nn.functional.max_pool2d(planes, 3, 1, 1), map)
    assert torch.equal(pooled, torch.nn.functional.max_pool2d(planes, 3, 1, 1).unflatten(1, shape[1:3]))
    if min(shape[1], *shape[3:]) > 1:
        assert planes.is_contiguous(memory_format=torch.contiguous_format if format == "rows" else torch.channels_last)
        assert pooled.stride() == map.stride()
        assert memory_format.by_planes(lambda planes: planes, map).data_ptr() == map.data_ptr()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", ["irrep", "fused"])
@pytest.mark.parametrize("kind", ["lifting", "group"])
def test_on_a_gpu_numbers_of_pixels_lie_fields_last(kind, family, format):
    """What compilation is told of the ops; test_cuda_ops.py compares the ops with it."""
    if kind == "lifting" and format == "fields last":
        pytest.skip("an image has no elements")
    x, weight, _ = cases.make(kind, functional.as_group("C4"), in_fields=3, out_fields=5)
    want = "rows" if format == "rows" else "fields last"
    with FakeTensorMode(allow_non_fake_inputs=True):
        empty = [torch.empty_strided(t.shape, t.stride(), device="cuda") for t in (FORMATS[format](x), weight)]
        y = ops.fprop(family, *empty, None, None, None, "C4", "output", [1, 1], [1, 1], [1, 1], 1, False)
        assert y.device.type == "cuda"
        dx = ops.dgrad(family, y, empty[1], None, None, "C4", "output", x.shape[-2:], [1, 1], [1, 1], [1, 1], 1) if kind == "group" else y
    for map in (y, dx):
        assert map.stride() == strides(want, torch.empty(map.shape))


@pytest.fixture
def found(monkeypatch):
    """A list of all maps that convolutions get, in every pass.  The CPU gives those of images the format that a GPU would."""
    maps = []
    for name, compute in [(name, getattr(ops, name)) for name in ("fprop", "dgrad", "wgrad")]:

        def run(kernels, *arguments, name=name, compute=compute):
            maps.extend(map for map in arguments if isinstance(map, torch.Tensor) and map.dim() == 5 and map.shape[-1] > 4)
            result = compute(kernels, *arguments)
            return FORMATS["fields last"](result) if name == "fprop" and arguments[0].dim() == 4 and not GPU else result

        monkeypatch.setattr(ops, name, run)
    if not GPU:
        monkeypatch.setattr(autograd, "result_format", lambda like: "fields last")
    return maps


@pytest.mark.parametrize("name", ["noise_p4_cnn", "noise_relaxed_p4m_cnn", "p4cnn", "p4_resnet18", "p4m_resnet44"])
def test_networks_on_a_gpu_have_their_fields_last(name, found):
    """Every map and every gradient of every convolution.  Without a GPU, on the CPU as if it were one."""
    network = create_model(name, width=3, algorithm="irrep")
    x = torch.randn(2, network.in_channels, 33, 33)
    if GPU:
        network, x = network.cuda(), x.cuda()
    network.memory_format = torch.channels_last  # counts on the CPU
    network(x).square().sum().backward()
    convolutions = [layer for layer in network.modules() if isinstance(layer, (nn.GroupConv2d, nn.RelaxedGroupConv2d))]
    assert len(found) >= 4 * len(convolutions) > 0
    assert all(map.is_contiguous(memory_format=torch.channels_last_3d) for map in found)
