"""GroupBatchNorm2d in training: the CPU's kernels against torch.nn.BatchNorm3d, and where they leave the work to it."""

import copy

import pytest
import torch
from torch.autograd import forward_ad

from gconv_ext import batch_norm, nn, ops

SIZES = [(2, 3, 4, 5, 7), (1, 3, 8, 1, 1), (3, 3, 1, 6, 6), (4, 3, 4, 14, 14), (2, 3, 8, 28, 28)]
OPTIONS = [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"momentum": 0.3, "eps": 1e-2}, {"activation": "relu"}]


def map_of(*sizes, dtype=torch.float64):
    """With another mean and variance in every field."""
    field = torch.arange(sizes[1]).view(-1, 1, 1, 1)
    return (torch.randn(sizes, dtype=torch.float64) * (field + 1) + 3 * field).to(dtype)


class Peer(torch.nn.BatchNorm3d):
    """PyTorch's layers."""

    def __init__(self, features, *, activation=None, **options):
        super().__init__(features, **options)
        self.activation = torch.nn.Identity() if activation is None else torch.nn.ReLU()

    def forward(self, x):
        return self.activation(super().forward(x))


def pair(options, dtype=torch.float64, features=3):
    """Ours, and PyTorch's with the same parameters."""
    layer, peer = nn.GroupBatchNorm2d(features, **options), Peer(features, **options)
    if layer.affine:
        torch.nn.init.normal_(layer.weight), torch.nn.init.normal_(layer.bias)
    peer.load_state_dict(layer.state_dict())
    return layer.to(dtype), peer.to(dtype)


@pytest.fixture
def passes(monkeypatch):
    """How often each kernel was called."""
    counts = {"batch_norm_fprop": 0, "batch_norm_dgrad": 0}

    def counted(name, op):
        def call(*arguments):
            counts[name] += 1
            return op(*arguments)

        return call

    for name in counts:
        monkeypatch.setattr(ops, name, counted(name, getattr(ops, name)))
    return counts


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_as_pytorch(sizes, options, passes):
    """Results, gradients and running statistics of three steps, then results in eval mode."""
    layer, peer = pair(options)
    for step in range(1, 4):
        x = map_of(*sizes)
        dy = torch.randn(sizes).double()
        results = []
        for module in (layer, peer):
            own = x.clone().requires_grad_()
            y = module(own)
            results.append([y, *torch.autograd.grad(y, [own, *module.parameters()], dy)])
        for got, want in zip(*results):
            assert torch.allclose(got, want, rtol=1e-11, atol=1e-11)
        assert passes == {"batch_norm_fprop": step, "batch_norm_dgrad": step}
    for (name, got), want in zip(layer.state_dict().items(), peer.state_dict().values()):
        assert torch.allclose(got, want, rtol=1e-12, atol=1e-12), name
    if layer.track_running_stats:
        assert torch.allclose(layer.eval()(x), peer.eval()(x))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inference_as_pytorch(dtype, sizes, options, monkeypatch):
    layer, peer = pair(options, dtype)
    before = map_of(2, 3, 4, 5, 5, dtype=dtype)
    for module in (layer, peer):
        module(before)
        module.eval()
    calls = []
    monkeypatch.setattr(batch_norm, "inference", lambda *args, inference=batch_norm.inference: calls.append(1) or inference(*args))
    x = map_of(*sizes, dtype=dtype)
    with torch.no_grad():
        got, want, exact = layer(x), peer(x), copy.deepcopy(peer).double()(x.double())
    assert len(calls) == layer.track_running_stats
    again = layer(x)  # parameters of which a gradient might be wanted make it PyTorch's
    assert len(calls) == (1 + (not layer.affine)) * layer.track_running_stats
    errors = [(result - exact).abs().max() / exact.abs().max() for result in (got, again, want)]
    assert max(errors[:2]) <= 2 * errors[2] + 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize("mean", [0, 1e3])
def test_float32_is_no_further_off_than_pytorch(mean, passes):
    """Against float64; a mean a thousand times the deviation costs both three digits."""
    x, dy = (torch.randn(4, 3, 4, 28, 28, dtype=torch.float64) for _ in range(2))
    x = (x + mean).float()
    layer, peer = pair({}, torch.float32)
    exact = torch.nn.BatchNorm3d(3).double()
    exact.load_state_dict(peer.state_dict())
    results = []
    for module in (exact, layer, peer):
        own = x.to(module.weight.dtype).requires_grad_()
        y = module(own)
        results.append([y, *torch.autograd.grad(y, [own, *module.parameters()], dy.to(y.dtype)), module.running_var])
    for want, got, theirs in zip(*results):
        error, allowed = ((result - want).abs().max() / want.abs().max() for result in (got, theirs))
        assert error <= 2 * allowed + 4 * torch.finfo(torch.float32).eps
    assert passes == {"batch_norm_fprop": 1, "batch_norm_dgrad": 1}


@pytest.mark.parametrize("relu", [False, True])
def test_derivatives_of_every_order(relu, passes):
    layer, _ = pair({"track_running_stats": False})
    x = map_of(2, 3, 2, 2, 3).requires_grad_()

    def call(x, weight, bias):
        return batch_norm.normalise(x, weight, bias, layer.eps, relu)[0]

    inputs = (x, layer.weight, layer.bias)
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)
    assert passes["batch_norm_dgrad"] > 0

    def gradient(x, weight, bias):
        return torch.autograd.grad(call(x, weight, bias).pow(3).sum(), (x, weight), create_graph=True)

    assert torch.autograd.gradgradcheck(gradient, inputs, fast_mode=True)


def test_only_the_gradients_that_are_needed(passes):
    layer, peer = pair({})
    x, dy = map_of(2, 3, 4, 5, 5), torch.randn(2, 3, 4, 5, 5).double()
    got, want = (torch.autograd.grad(module(x), module.weight, dy)[0] for module in (layer, peer))
    assert torch.allclose(got, want)
    layer.weight.requires_grad_(False), layer.bias.requires_grad_(False), peer.requires_grad_(False)
    own = [x.clone().requires_grad_() for _ in range(2)]
    got, want = (torch.autograd.grad(module(x), x, dy)[0] for module, x in zip((layer, peer), own))
    assert torch.allclose(got, want) and passes["batch_norm_dgrad"] == 2
    with torch.no_grad():
        assert torch.allclose(layer(x), peer(x))


def test_results_do_not_depend_on_the_number_of_threads(passes):
    x = map_of(3, 7, 4, 19, 19, dtype=torch.float32).requires_grad_()
    layer, threads, results = nn.GroupBatchNorm2d(7), torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            y = layer(x)
            results.append([y, *torch.autograd.grad(y.square().sum(), [x, layer.weight, layer.bias])])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))
    assert passes["batch_norm_dgrad"] == 3


@pytest.mark.parametrize("view", ["expanded", "turned", "strided"])
def test_memory_of_other_layouts_in_rows(view):
    layer, peer = pair({})
    x = {
        "expanded": map_of(1, 3, 4, 6, 6).expand(2, -1, -1, -1, -1),
        "turned": map_of(2, 3, 4, 6, 6).transpose(3, 4),
        "strided": map_of(2, 3, 4, 12, 6)[:, :, :, ::2],
    }[view]
    dy = torch.randn(2, 3, 6, 6, 4).double().permute(0, 1, 4, 2, 3)
    results = []
    for module in (layer, peer):
        own = x.detach().requires_grad_()
        y = module(own)
        results.append([y, *torch.autograd.grad(y, [own, module.weight], dy)])
    assert all(torch.allclose(got, want) for got, want in zip(*results))


def forward_derivative(module, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(module(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


LEFT_TO_PYTORCH = {
    "eval": lambda module, x: module.eval()(x),
    "channels last": lambda module, x: module(x.to(memory_format=torch.channels_last_3d)),
    "bfloat16": lambda module, x: module.bfloat16()(x.bfloat16()),
    "autocast": lambda module, x: module.float()(x.bfloat16()),
    "no images": lambda module, x: module(x[:0]),
    "forward mode": forward_derivative,
    "torch.func": lambda module, x: torch.func.grad(lambda x: (module(x) ** 3).sum())(x),
    "fake": lambda module, x: torch.ones(module.to("meta")(x.to("meta")).shape),
}


@pytest.mark.parametrize("name", LEFT_TO_PYTORCH)
def test_left_to_pytorch(name, passes):
    layer, peer = pair({"track_running_stats": name not in ("forward mode", "torch.func")})
    x = map_of(2, 3, 4, 5, 5)
    got, want = (LEFT_TO_PYTORCH[name](module, x) for module in (layer, peer))
    assert torch.allclose(got, want) and not any(passes.values())


def test_many_gradients_at_once(passes):
    """is_grads_batched maps the backward pass."""
    layer, peer = pair({})
    dy = torch.randn(5, 2, 3, 4, 5, 5).double()
    x = map_of(2, 3, 4, 5, 5)
    results = [
        torch.autograd.grad(module(x), module.weight, dy, is_grads_batched=True)[0] for module in (layer, peer)
    ]
    assert torch.allclose(*results) and passes == {"batch_norm_fprop": 1, "batch_norm_dgrad": 1}


def test_running_statistics_taken_away(passes):
    layer, peer = pair({})
    for module in (layer, peer):
        module.running_mean = module.running_var = module.num_batches_tracked = None
    x = map_of(2, 3, 4, 5, 5)
    assert torch.allclose(layer(x), peer(x)) and torch.allclose(layer.eval()(x), peer.eval()(x))
    assert passes["batch_norm_fprop"] == 2


def test_one_number_a_field_is_refused():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.GroupBatchNorm2d(3)(torch.randn(1, 3, 1, 1, 1))
    with pytest.raises((ValueError, RuntimeError), match="3"):
        nn.GroupBatchNorm2d(3)(torch.randn(2, 4, 4, 5, 5))


def test_opcheck():
    x, weight = torch.randn(2, 3, 4, 5, 5), torch.randn(3)
    torch.library.opcheck(torch.ops.gconv_ext.batch_norm_fprop, (x, weight, None, 1e-5, True))
    y, mean, var = ops.batch_norm_fprop(x, weight, None, 1e-5, True)
    torch.library.opcheck(torch.ops.gconv_ext.batch_norm_inference, (x, weight, None, mean, var, 1e-5, True))
    for need_x, activated in ((True, None), (False, y)):
        torch.library.opcheck(torch.ops.gconv_ext.batch_norm_dgrad, (x, x, mean, var, None, activated, 1e-5, need_x))


@pytest.mark.parametrize("call, error_type, message", [
    (lambda x, ops: ops.batch_norm_fprop(x[0], None, None, 1e-5, False), ValueError, "x must be [B, C, |P|, H, W], got shape [3, 4, 5, 5]"),
    (lambda x, ops: ops.batch_norm_fprop(x.int(), None, None, 1e-5, False), TypeError, "x must be float32 or float64, got Int"),
    (lambda x, ops: ops.batch_norm_fprop(x[:0], None, None, 1e-5, False), ValueError, "x must have at least one number in each field"),
    (lambda x, ops: ops.batch_norm_fprop(x, None, None, -1.0, False), ValueError, "eps must be at least 0, got -1"),
    (lambda x, ops: ops.batch_norm_fprop(x, torch.ones(2), None, 0.0, False), ValueError, "weight must have shape [3], got [2]"),
    (lambda x, ops: ops.batch_norm_fprop(x, None, torch.ones(3).double(), 0.0, False), TypeError, "bias must have x's dtype Float, got Double"),
    (lambda x, ops: ops.batch_norm_dgrad(x[:1], x, *x[:2, :, 0, 0, 0], None, None, 0.0, True), ValueError, "dy must have shape [2, 3, 4, 5, 5]"),
    (lambda x, ops: ops.batch_norm_dgrad(x, x, torch.ones(4), torch.ones(3), None, None, 0.0, True), ValueError, "mean must have shape [3], got [4]"),
    (lambda x, ops: ops.batch_norm_dgrad(x, x, *x[:2, :, 0, 0, 0], None, x[:1], 0.0, True), ValueError, "activated must have shape [2, 3, 4, 5, 5]"),
    (lambda x, ops: ops.batch_norm_inference(x, None, None, torch.ones(3), torch.ones(4), 0.0, False), ValueError, "var must have shape [3], got [4]"),
])  # fmt: skip
def test_the_ops_check_their_own_arguments(call, error_type, message):
    with pytest.raises(error_type) as error:
        call(torch.ones(2, 3, 4, 5, 5), torch.ops.gconv_ext)
    assert message in str(error.value)
