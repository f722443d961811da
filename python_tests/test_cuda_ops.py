"""The ops on a GPU against the same ops on the CPU."""

import math

import cases
import pytest
import torch

from gconv_ext import ops, reference, transform_feature_map
from gconv_ext.memory_format import empty_map_like

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU; csrc/cuda's tests run the kernels on the CPU")
DEVICE = "cuda"


@pytest.fixture(autouse=True, scope="module")
def _cuda_kernels_are_there():
    # Where there is a GPU the suite must not pass for lack of kernels.
    assert ops.build_info()["cuda"].startswith("built"), ops.build_info()["cuda"]


def bank_of(kind, group, **options):
    _, weight, *relaxed, _ = cases.make(kind, group, **options)
    return weight, relaxed[0] if relaxed else None


def assert_close(got, expected, terms=None):
    """Within the rounding of the largest result; or of each one's terms, given the sum of their sizes."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    error = (got.cpu().double() - expected.double()).abs()
    assert (error <= 4 * torch.finfo(expected.dtype).eps * (expected.double().abs().max() if terms is None else terms)).all()


def on_device(tensor):
    return None if tensor is None else tensor.to(DEVICE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_expand_filter(kind, group, k, dtype):
    weight, relaxed_weight = bank_of(kind, group, k=k, in_fields=20, out_fields=9, dtype=dtype)
    options, mask = (group.name, cases.relax_on(kind)), [True, relaxed_weight is not None]
    filter = ops.expand_filter(weight, relaxed_weight, *options)
    # Strides of their own on every tensor.
    there = torch.cat([on_device(weight)] * 2, dim=-1)[..., :k]
    relaxed_there = None if relaxed_weight is None else on_device(relaxed_weight).mT.contiguous().mT
    grad = torch.randn_like(filter)
    grad_there = on_device(grad).to(memory_format=torch.channels_last)

    filter_there = ops.expand_filter(there, relaxed_there, *options)
    gradients_there = ops.expand_filter_backward(grad_there, there, relaxed_there, *options, mask)
    assert_close(filter_there, filter)
    arguments = (grad, weight, relaxed_weight)
    gradients = ops.expand_filter_backward(*arguments, *options, mask)
    assert_close(gradients_there[0], gradients[0])
    if relaxed_weight is not None:  # of thousands of terms that mostly cancel
        terms = ops.expand_filter_backward(*(t.double().abs() for t in arguments), *options, mask)[1]
        assert_close(gradients_there[1], gradients[1], terms)
    assert torch.equal(ops.expand_filter(there, relaxed_there, *options), filter_there)
    again = ops.expand_filter_backward(grad_there, there, relaxed_there, *options, mask)
    assert all(torch.equal(*pair) for pair in zip(again, gradients_there))


# Of the largest number: sums in float32 or float64, or twice what rounding it to the type can change.
TOLERANCES = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 2 * 2**-8, torch.float16: 2 * 2**-11}
LAYERS = {
    "small": dict(in_fields=5, out_fields=6),
    "whole steps": dict(in_fields=64, out_fields=48),
    "groups": dict(in_fields=20, out_fields=34, groups=2),
}
GEOMETRIES = {
    "padded": dict(k=3, stride=[1, 1], padding=[1, 1], dilation=[1, 1]),
    "strided": dict(k=3, stride=[2, 3], padding=[1, 2], dilation=[1, 1]),
    "dilated": dict(k=2, stride=[1, 2], padding=[0, 1], dilation=[2, 3]),
}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("layer", LAYERS)
def test_irrep_fprop_and_dgrad(kind, group, layer, geometry, dtype):
    options = dict(GEOMETRIES[geometry])
    k, layer = options.pop("k"), LAYERS[layer]
    groups = layer.get("groups", 1)
    x, weight, *relaxed, bias = cases.make(kind, group, k=k, size=(17, 12), batch=3, dtype=dtype, **layer)
    relaxed_weight = relaxed[0] if relaxed else None
    names = (group.name, cases.relax_on(kind))

    def assert_within(got, expected):
        assert got.shape == expected.shape and got.dtype == dtype
        error = (got.cpu().double() - expected).abs().max()
        assert error <= TOLERANCES[dtype] * expected.abs().max()

    wide = [None if t is None else t.double() for t in (x, weight, relaxed_weight, bias)]
    expected = ops.fprop("irrep", *wide, None, *names, *options.values(), groups, True)
    weights = (on_device(weight), on_device(relaxed_weight))
    grad, activated = torch.randn_like(expected).to(dtype), expected.to(dtype)
    backward = (*names, x.shape[-2:], *options.values(), groups)
    if not cases.is_lifting(kind):
        expected_grad = ops.dgrad("irrep", grad.double(), wide[1], wide[2], activated.double(), *backward)
    transformed = ops.transform_weight("irrep", *weights, *names, groups)
    for format in (torch.contiguous_format, torch.channels_last if x.dim() == 4 else torch.channels_last_3d):
        arguments = (on_device(x).to(memory_format=format), *weights, on_device(bias))
        y = ops.fprop("irrep", *arguments, None, *names, *options.values(), groups, True)
        assert_within(y, expected)
        assert y.stride() == empty_map_like(arguments[0], *y.shape[1:]).stride()
        assert torch.equal(ops.fprop("irrep", *arguments, transformed, *names, *options.values(), groups, True), y)
        if not cases.is_lifting(kind):
            dy, mask = (on_device(map).to(memory_format=format) for map in (grad, activated))
            dx = ops.dgrad("irrep", dy, *weights, mask, *backward)
            assert_within(dx, expected_grad)
            assert dx.stride() == empty_map_like(dy, *dx.shape[1:]).stride()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("layer", LAYERS)
def test_fused(kind, group, layer, geometry, dtype):
    """All passes, against the derivatives of the definition on the CPU."""
    options = dict(GEOMETRIES[geometry])
    k, layer = options.pop("k"), LAYERS[layer]
    groups = layer.get("groups", 1)
    tensors = cases.make(kind, group, k=k, size=(17, 12), batch=3, dtype=dtype, **layer)
    wide = [tensor.double().requires_grad_() for tensor in tensors]
    names = (group.name, cases.relax_on(kind))
    # The functions would refuse strides that the group exchanges.
    bank = (wide[1], wide[2] if len(wide) > 3 else None, group, names[1], cases.is_lifting(kind))
    result = reference.correlate(wide[0], reference.expand_filter(*bank), wide[-1], group, *options.values(), groups).relu()
    grad, activated = torch.randn_like(result).to(dtype), result.detach().to(dtype)
    counting = grad.double() * (activated > 0)  # 0 too where the type rounds a result to 0
    expected = [result.detach(), *torch.autograd.grad(result, wide[:2], counting)]

    x, weight, *relaxed, bias = map(on_device, tensors)
    relaxed_weight = relaxed[0] if relaxed else None
    for format in (torch.contiguous_format, torch.channels_last if x.dim() == 4 else torch.channels_last_3d):
        there = x.to(memory_format=format)
        map_format = torch.contiguous_format if format is torch.contiguous_format else torch.channels_last_3d
        dy, mask = (on_device(map).to(memory_format=map_format) for map in (grad, activated))
        got = [
            ops.fprop("fused", there, weight, relaxed_weight, bias, None, *names, *options.values(), groups, True),
            ops.dgrad("fused", dy, weight, relaxed_weight, mask, *names, x.shape[-2:], *options.values(), groups),
            ops.wgrad("fused", there, dy, relaxed_weight, mask, *names, k, *options.values(), groups),
        ]
        for tensor, right in zip(got, expected):
            assert tensor.shape == right.shape and tensor.dtype == dtype
            assert (tensor.cpu().double() - right).abs().max() <= TOLERANCES[dtype] * right.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("algorithm", ["irrep", "fused"])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_of_relaxed_layers(algorithm, kind, group, bias, dtype):
    """To the banks and their weights, both from one wgrad."""
    if "relaxed" not in kind:
        pytest.skip("strict")
    tensors = [t for t in cases.make(kind, group, in_fields=5, out_fields=6, banks=3, bias=bias, dtype=dtype) if t is not None]
    slope = None
    activation = "relu" if dtype == torch.float64 else None  # in 16 bits y near 0 may lie on either side of it

    def gradients(algorithm, dtype):
        nonlocal slope
        inputs = [tensor.to(DEVICE, dtype).requires_grad_() for tensor in tensors]
        y = cases.call(kind, [*inputs, None][:4], group, padding=1, activation=activation, algorithm=algorithm)
        slope = torch.randn_like(y) if slope is None else slope
        return torch.autograd.grad(y, inputs, slope.to(dtype))

    exact = gradients("reference", torch.float64)
    plain, got = gradients("reference", dtype), gradients(algorithm, dtype)
    for result, peer, want in zip(got, plain, exact):
        error, allowed = ((t.double() - want).abs().max() for t in (result, peer))
        assert error <= 2 * allowed + 1e-9 * want.abs().max()


@pytest.mark.parametrize("family", ["irrep", "fused"])
def test_what_has_its_planes_last_becomes_a_map_with_its_fields_last(family, kind, group):
    x, weight, *rest = cases.make(kind, group, in_fields=3, out_fields=16)
    relaxed_weight, options = rest[0] if len(rest) > 1 else None, (group.name, cases.relax_on(kind), [1, 1], [1, 1], [1, 1], 1, False)
    last = on_device(x).flatten(1, -3).clone(memory_format=torch.channels_last).unflatten(1, x.shape[1:-2])
    run = lambda x: ops.fprop(family, x, on_device(weight), on_device(relaxed_weight), None, None, *options)  # noqa: E731
    y = run(last)
    assert y.is_contiguous(memory_format=torch.channels_last_3d) and torch.allclose(y, run(on_device(x)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["irrep", "fused"])
def test_tf32(family, group, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    x, weight, _ = cases.make("group", group, in_fields=64, out_fields=32, size=(20, 20), dtype=torch.float32)
    options = (group.name, "output", [1, 1], [1, 1], [1, 1], 1, False)
    expected = ops.fprop("irrep", x.double(), weight.double(), None, None, None, *options)
    y = ops.fprop(family, x.to(DEVICE), weight.to(DEVICE), None, None, None, *options)
    error = (y.cpu().double() - expected).abs().max() / expected.abs().max()
    assert 1e-6 < error <= 2 * 2**-11  # or they were not products in tf32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_irrep_is_exactly_equivariant(group, dtype):
    arguments = cases.make("group", group, in_fields=20, out_fields=20, size=(15, 15), dtype=dtype, bias=False)
    x, weight = (tensor.to(DEVICE) for tensor in arguments[:2])
    forward = (weight, None, None, None, group.name, "output", [1, 1], [1, 1], [1, 1], 1, False)
    backward = (weight, None, None, group.name, "output", [29, 29], [2, 2], [1, 1], [1, 1], 1)
    for run, options in ((ops.fprop, forward), (ops.dgrad, backward)):
        y = run("irrep", x, *options)
        for g in range(1, group.order):
            moved = run("irrep", transform_feature_map(x, group, g), *options)
            assert torch.equal(moved, transform_feature_map(y, group, g))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fields", [(64, 64), (40, 24), (32, 72)])
def test_irrep_with_and_without_wgmma(group, fields, dtype):
    """On a Hopper GPU C4 and D4 have two kernels, of which C4's add the fields in orders of their own."""
    x, weight, _ = cases.make("group", group, in_fields=fields[0], out_fields=fields[1], size=(17, 17), batch=3, dtype=dtype)
    there = x.to(DEVICE, memory_format=torch.channels_last_3d)
    options = (group.name, "output", [1, 1], [1, 1], [1, 1], 1, False)

    def run(x):
        return ops.fprop("irrep", x, weight.to(DEVICE), None, None, None, *options)

    expected = ops.fprop("irrep", x.double(), weight.double(), None, None, None, *options)
    y = run(there)
    with ops.without_wgmma():
        other = run(there)
    assert torch.equal(run(there), y)
    for result in (y, other):
        assert (result.cpu().double() - expected).abs().max() <= TOLERANCES[dtype] * expected.abs().max()
    if torch.cuda.get_device_capability()[0] == 9 and group.name == "C4":
        assert not torch.equal(other, y)  # or wgmma was not taken
    for g in range(1, group.order):
        moved = transform_feature_map(there, group, g).contiguous(memory_format=torch.channels_last_3d)
        assert torch.equal(run(moved), transform_feature_map(y, group, g))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fields", [(64, 64), (40, 24), (36, 72)])
@pytest.mark.parametrize("masked", [False, True])
def test_irrep_wgrad_of_wide_layers(group, fields, masked, dtype):
    """Of C4 and D4 in channels_last_3d X̂ stays in registers, with and without wgmma."""
    x, _, _ = cases.make("group", group, in_fields=fields[0], out_fields=8, size=(17, 19), batch=3, dtype=dtype)
    dy = torch.randn(3, fields[1], group.order, 9, 10, dtype=dtype)
    activated = torch.randn_like(dy) if masked else None
    options = (group.name, "output", 3, [2, 2], [1, 1], [1, 1], 1)

    def there(tensor):
        return None if tensor is None else tensor.to(DEVICE, memory_format=torch.channels_last_3d)

    def run():
        return ops.wgrad("irrep", there(x), there(dy), None, there(activated), *options)

    expected = ops.wgrad("irrep", x.double(), dy.double(), None, activated.double() if masked else None, *options)
    gradient = run()
    with ops.without_wgmma():
        other = run()
    assert torch.equal(run(), gradient)
    # What rounding the two operands of a product and the result can change.
    tolerance = (1 + math.log2(group.order) + 1) * TOLERANCES[dtype]
    for result in (gradient, other):
        assert (result.cpu().double() - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_current_stream_is_used():
    weight = torch.zeros(64, 64, 8, 3, 3, device=DEVICE)
    new = torch.ones_like(weight)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(100_000_000)
        weight.copy_(new)
        filter = ops.expand_filter(weight, None, "D4", "output")
    torch.cuda.synchronize()
    assert filter.eq(1).all()


def test_tensors_of_two_devices_are_refused():
    weight, relaxed_weight = torch.ones(2, 1, 1, 4, 3, 3, device=DEVICE), torch.ones(2, 4)
    with pytest.raises(ValueError, match="relaxed_weight must be on weight's device cuda:0, got cpu"):
        ops.expand_filter(weight, relaxed_weight, "C4", "output")
