"""What is kept of weights: a fingerprint that no change escapes, and results that follow the weights."""

import gc
import weakref

import pytest
import torch
from torch.autograd import forward_ad

from gconv_ext import autograd, dense, functional, kernels, nn, ops

# Around a turn of the loop (64 bytes) and a piece that one thread takes (128 KiB).
BYTES = [1, 15, 16, 63, 64, 65, 127, 128, 129, 131071, 131072, 131073, 300001]


def fingerprint(x):
    return ops.contents(x)[-16:]


@pytest.mark.parametrize("count", BYTES)
def test_every_bit_changes_the_fingerprint(count):
    generator = torch.Generator().manual_seed(count)
    x = torch.randint(256, (count,), dtype=torch.uint8, generator=generator)
    first = fingerprint(x)
    places = range(count) if count < 200 else torch.randint(count, (200,), generator=generator).tolist() + [0, count - 1]
    seen = {first}
    for place in places:
        for bit in range(8):
            x[place] ^= 1 << bit
            seen.add(fingerprint(x))
            x[place] ^= 1 << bit
    assert len(seen) == 1 + 8 * len(set(places))
    assert fingerprint(x) == first
    assert all(len({all[half] for all in seen}) == len(seen) for half in (slice(8), slice(8, 16)))  # either half alone


def test_order_and_length_change_the_fingerprint():
    x = torch.arange(100_000, dtype=torch.float32)
    others = [x.flip(0), x.roll(1), x.roll(4), x.roll(32768), x[:-1], torch.zeros(0), torch.zeros(1), torch.zeros(2), torch.zeros(16)]
    assert len({fingerprint(other) for other in [x, *others]}) == 10


def test_the_fingerprint_is_of_the_numbers_alone():
    """Not of where they lie, nor of the number of threads."""
    x = torch.randn(40, 30, 50)
    first, threads = fingerprint(x), torch.get_num_threads()
    assert fingerprint(x.clone()) == first == fingerprint(x.mT.contiguous().mT)
    try:
        torch.set_num_threads(3)
        assert fingerprint(x) == first
    finally:
        torch.set_num_threads(threads)


def test_contents_tell_shapes_types_tensors_and_inference_mode_apart():
    x = torch.zeros(2, 3)
    all = [(x,), (x.view(3, 2),), (x.view(6),), (x.int(),), (x, x), (x, x.view(6)), (x[:1],), (x.double(),)]
    with torch.inference_mode():
        there = ops.contents(x)
    assert len({there, *(ops.contents(*tensors) for tensors in all)}) == 1 + len(all)
    assert ops.contents(x, None) == ops.contents(x.clone()) == ops.contents(torch.nn.Parameter(x))
    assert ops.contents(torch._neg_view(x + 1)) == ops.contents(x - 1)
    with pytest.raises(TypeError, match="expected a tensor"):
        ops.contents("x")
    with pytest.raises(ValueError, match="on the CPU, got one on meta"):
        ops.contents(x.to("meta"))


KEEPERS = {  # algorithm: (what is kept, module and name of the function that computes it)
    "dense": (dense._kept_filter, dense.autograd, "expand_filter"),
    "irrep": (kernels._kept_transform, kernels.ops, "transform_weight"),
}


@pytest.fixture(params=KEEPERS)
def algorithm(request):
    return request.param


@pytest.fixture
def computed(monkeypatch, algorithm):
    """A list that grows by one whenever what is kept is computed."""
    calls, (_, module, name) = [], KEEPERS[algorithm]
    compute = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args: calls.append(1) or compute(*args))
    return calls


@pytest.mark.parametrize("no_gradient", [torch.no_grad, torch.inference_mode])
def test_the_filter_is_kept_without_gradients(computed, algorithm, no_gradient):
    layer = nn.RelaxedGroupConv2d(2, 3, 3, num_filter_banks=2, algorithm=algorithm)
    x = torch.randn(1, 2, 4, 5, 5)
    want = layer(x)
    computed.clear()
    with no_gradient():
        assert torch.equal(layer(x), want) and torch.equal(layer(x), want)
        assert layer(torch.randn(3, 2, 4, 9, 7)).shape == (3, 3, 4, 7, 5)
    assert len(computed) == 1


@pytest.mark.parametrize("change", [
    lambda layer: layer.weight.add_(1),
    lambda layer: layer.weight.data.add_(1),  # no version counter sees this one
    lambda layer: layer.weight.detach().numpy().fill(0.5),
    lambda layer: layer.relaxed_weight[0, 1].mul_(3),
    lambda layer: setattr(layer.weight, "data", torch.randn_like(layer.weight)),
    lambda layer: layer.load_state_dict(nn.RelaxedGroupConv2d(2, 3, 3, num_filter_banks=2).state_dict()),
    lambda layer: layer.double().weight.mul_(2),
])  # fmt: skip
def test_a_changed_weight_is_seen(change, algorithm):
    layer, x = nn.RelaxedGroupConv2d(2, 3, 3, num_filter_banks=2, algorithm=algorithm), torch.randn(1, 2, 4, 5, 5)
    with torch.no_grad():
        before = layer(x)
        change(layer)
        after = layer(x.to(layer.weight.dtype))
        layer.algorithm = "reference"
        assert torch.allclose(after, layer(x.to(layer.weight.dtype)), atol=1e-4)
    assert not torch.allclose(after.float(), before)


def test_one_weight_in_two_layers_of_other_groups(algorithm):
    weight, x = torch.randn(3, 2, 4, 3, 3), torch.randn(1, 2, 4, 5, 5)
    for _ in range(2):
        for group in ("C4", "D2"):
            got = functional.group_conv2d(x, weight, group=group, algorithm=algorithm)
            assert torch.allclose(got, functional.group_conv2d(x, weight, group=group, algorithm="reference"), atol=1e-4)


def test_the_filter_is_not_kept_when_a_gradient_is_needed(algorithm):
    layer = nn.GroupConv2d(2, 3, 3, algorithm=algorithm)
    layer(torch.randn(1, 2, 4, 5, 5)).sum().backward()
    assert id(layer.weight) not in KEEPERS[algorithm][0]._entries


def test_a_kept_filter_of_inference_mode_does_not_reach_autograd(algorithm):
    layer, x = nn.GroupConv2d(2, 3, 3, algorithm=algorithm).requires_grad_(False), torch.randn(1, 2, 4, 5, 5, requires_grad=True)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert x.grad is not None


def test_kept_filters_go_with_their_weight(algorithm):
    layer, x = nn.GroupConv2d(2, 3, 3, algorithm=algorithm), torch.randn(1, 2, 4, 5, 5)
    with torch.no_grad():
        layer(x)
    kept = weakref.ref(KEEPERS[algorithm][0]._entries[id(layer.weight)][-1])
    del layer
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("algorithm", ["irrep", "auto"])
def test_without_derivatives_no_autograd_function_is_entered(monkeypatch, algorithm):
    """It takes longer than a small convolution.  With derivatives there is one, in forward mode too."""
    x, weight = torch.randn(2, 3, 4, 6, 6), torch.randn(5, 3, 4, 3, 3)

    def call(x):
        return functional.group_conv2d(x, weight, group="C4", algorithm=algorithm)

    expected = call(x.clone().requires_grad_())
    assert expected.requires_grad

    def entered(*arguments):
        raise RuntimeError("entered")

    monkeypatch.setattr(autograd.Fprop, "apply", entered)
    assert torch.equal(call(x), expected)
    with torch.no_grad():
        assert torch.equal(call(x.clone().requires_grad_()), expected)
    with torch.inference_mode():
        assert torch.equal(call(x), expected)
    with pytest.raises(RuntimeError, match="entered"):
        call(x.clone().requires_grad_())
    if algorithm == "irrep":
        with forward_ad.dual_level(), pytest.raises(RuntimeError, match="entered"):
            call(forward_ad.make_dual(x, x))
