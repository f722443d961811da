"""GroupBatchNorm2d of maps with their planes last, which on a GPU goes by PyTorch's kernels for planes.  Without a GPU these are
played by their definitions, on the CPU."""

import copy

import pytest
import torch

from gconv_ext import batch_norm, create_model, memory_format, nn

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
OPTIONS = [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"activation": "relu", "eps": 1e-2}]


def of_channels(channel):
    return channel.view(-1, 1, 1)


def stats(x, eps):
    var, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    dtype = torch.promote_types(x.dtype, torch.float32)
    return mean.to(dtype), (var + eps).rsqrt().to(dtype)


def elemt(x, weight, bias, mean, invstd, eps):
    y = (x.double() - of_channels(mean)) * of_channels(invstd)
    y = y if weight is None else y * of_channels(weight) + of_channels(bias)
    return torch.empty_like(x).copy_(y)


def backward_reduce(dy, x, mean, invstd, weight, input_g, weight_g, bias_g):
    assert weight is None and (input_g, weight_g, bias_g) == (True, False, False)
    from_mean = dy.double() * (x.double() - of_channels(mean))
    return dy.double().sum((0, 2, 3)).to(mean.dtype), from_mean.sum((0, 2, 3)).to(mean.dtype), None, None


def backward_elemt(dy, x, mean, invstd, weight, sum_dy, sum_dy_xmu, count):
    assert count.dtype == torch.int32 and (weight is None or weight.dtype == mean.dtype)
    mean_dy, from_mean = of_channels(sum_dy / count), of_channels(sum_dy_xmu / count * invstd**2)
    dx = (dy.double() - mean_dy - (x.double() - of_channels(mean)) * from_mean) * of_channels(invstd)
    return torch.empty_like(x).copy_(dx if weight is None else dx * of_channels(weight))


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """How often each kernel was called, on planes in channels_last."""
    counts = {}
    for play in (stats, elemt, backward_reduce, backward_elemt):
        name = f"batch_norm_{play.__name__}"
        run = getattr(torch, name) if GPU else play

        def call(*arguments, name=name, run=run):
            maps = [a for a in arguments if isinstance(a, torch.Tensor) and a.dim() == 4]
            assert all(map.is_contiguous(memory_format=torch.channels_last) for map in maps)
            counts[name] = counts.get(name, 0) + 1
            return run(*arguments)

        monkeypatch.setattr(torch, name, call)
    monkeypatch.setattr(batch_norm, "_on_gpu", lambda x: True)
    return counts


def planes_last(map):
    return memory_format.in_format(map, "planes last")


def map_of(sizes, dtype):
    """With another mean and variance in every field."""
    field = torch.arange(sizes[1]).view(-1, 1, 1, 1)
    return planes_last((torch.randn(sizes) * (field + 1) + 3 * field).to(DEVICE, dtype))


def pair(options, dtype):
    """Ours, and PyTorch's in float64 with the same parameters."""
    layer, options = nn.GroupBatchNorm2d(3, **options), dict(options)
    activation = torch.nn.ReLU() if options.pop("activation", None) else torch.nn.Identity()
    if layer.affine:
        torch.nn.init.normal_(layer.weight), torch.nn.init.normal_(layer.bias)
    layer, peer = layer.to(DEVICE, dtype), torch.nn.BatchNorm3d(3, **options).to(DEVICE, torch.float64)
    peer.load_state_dict(layer.state_dict())
    return layer, torch.nn.Sequential(peer, activation)


def assert_close(got, want, dtype):
    error = (got.double() - want).abs().max()
    assert error <= 64 * torch.finfo(dtype).eps * (1 + want.abs().max())


DTYPES = {"float64": (torch.float64,) * 2, "float32": (torch.float32,) * 2, "bfloat16": (torch.bfloat16,) * 2, "autocast": (torch.bfloat16, torch.float32)}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("sizes", [(2, 3, 4, 5, 7), (4, 3, 8, 9, 9), (3, 3, 2, 6, 6)], ids=str)
@pytest.mark.parametrize("of_map, of_layer", DTYPES.values(), ids=DTYPES)
def test_as_pytorch(of_map, of_layer, sizes, options, calls):
    """Results, gradients and running statistics of two steps, then in eval mode; the format stays."""
    layer, peer = pair(options, of_layer)
    for training in (True, True, False):
        layer.train(training), peer.train(training)
        x = map_of(sizes, of_map)
        dy = torch.randn_like(x, memory_format=torch.contiguous_format)  # as behind a network's head
        results = []
        for module, own in ((layer, x.clone()), (peer, x.double())):
            own.requires_grad_()
            y = module(own)
            results.append([y, *torch.autograd.grad(y, [own, *module.parameters()], dy.to(y.dtype))])
        assert memory_format.format_of(results[0][0]) == "planes last"
        assert not training or memory_format.format_of(results[0][1]) == "planes last"
        for got, want in zip(*results):
            assert_close(got, want, of_map)
    steps = 2 + (not layer.track_running_stats)
    assert set(calls.values()) == {steps}
    for got, want in zip(layer.buffers(), peer.buffers()):
        assert_close(got, want, of_layer)


def test_derivatives_of_every_order(calls):
    x = map_of((2, 3, 2, 2, 3), torch.float64).requires_grad_()
    weight, bias = (torch.randn(3, device=DEVICE, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def call(x, weight, bias):
        return batch_norm.normalise_planes(planes_last(x), weight, bias, 1e-3)[0]

    assert torch.autograd.gradcheck(call, (x, weight, bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, weight, bias), fast_mode=True)
    assert calls["batch_norm_backward_elemt"]


def test_only_the_gradients_that_are_needed(calls):
    layer, peer = pair({}, torch.float64)
    x = map_of((2, 3, 4, 5, 5), torch.float64)
    got, want = (torch.autograd.grad(module(x).pow(3).sum(), list(module.parameters())) for module in (layer, peer))
    assert all(torch.allclose(*both) for both in zip(got, want)) and "batch_norm_backward_elemt" not in calls


@pytest.mark.parametrize("name", ["p4cnn", "p4m_resnet44"])
def test_networks_of_dense_layers_keep_their_planes_last(name, calls, monkeypatch):
    """Every map and every gradient of every convolution; the numbers are those of rows."""
    found, convolve = [], torch.nn.functional.conv2d

    def conv2d(x, *arguments):
        y = convolve(x, *arguments)
        found.append(x)
        if y.requires_grad and y.shape[-1] > 1:
            y.register_hook(found.append)
        return y

    network = create_model(name, width=3, algorithm="dense").to(DEVICE).double()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0
    x = torch.randn(2, network.in_channels, 33, 33, device=DEVICE, dtype=torch.float64)
    twin = copy.deepcopy(network)
    network.memory_format = torch.channels_last  # counts on the CPU
    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    network(x).square().sum().backward()
    assert calls and len(found) > 10 and all(map.is_contiguous(memory_format=torch.channels_last) for map in found)
    monkeypatch.undo()
    twin(x).square().sum().backward()
    for got, want in zip(network.parameters(), twin.parameters()):
        assert torch.allclose(got.grad, want.grad, rtol=1e-6, atol=1e-7 * (1 + want.grad.abs().max().item()))
