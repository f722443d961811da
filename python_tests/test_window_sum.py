"""Sums over windows: the CPU's kernels against PyTorch's convolution, and where they leave the work to slices."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from gconv_ext import PointGroup, ops, window_sum
from gconv_ext.groups import move_space
from gconv_ext.window_sum import separable

CASES = [
    (separable(taps), stride, padding)
    for taps, stride, padding in (
        ([1], 1, 0), ([2.5], 2, 0), ([1], 3, 1), ([1, 1], 2, 0), ([1, 1], 1, 1), ([0.5, 0.5], 3, 0), ([1, 2, 1], 2, 1),
        ([1, 3, 3, 1], 2, 2), ([1, 3, 3, 1], 3, 0), ([0.1, 0.2, 0.7, 0.2, 0.1], 2, 2), ([1, 4, 6, 4, 1], 1, 0),
        ([1, 4, 6, 4, 1], 3, 4), ([1] * 7, 2, 3), ([1] * 6, 9, 1),
    )
] + [([0.5, 2, 0.5, 2, -3, 2, 0.5, 2, 0.5], 2, 1)]  # fmt: skip
SIZES = [(2, 3, 7, 7), (3, 8, 11), (1, 2, 2, 40, 19), (1, 6, 6), (1, 2, 150, 130)]


@pytest.fixture
def passes(monkeypatch):
    """How often each kernel was called."""
    counts = {"window_sum_fprop": 0, "window_sum_dgrad": 0}

    def counted(name, op):
        def call(*arguments):
            counts[name] += 1
            return op(*arguments)

        return call

    for name in counts:
        monkeypatch.setattr(ops, name, counted(name, getattr(ops, name)))
    return counts


def correlated(x, taps, stride, padding):
    """By PyTorch's convolution."""
    kernel = torch.tensor(taps, dtype=x.dtype).view(round(len(taps) ** 0.5), -1)
    planes = x.reshape(-1, 1, *x.shape[-2:])
    y = F.conv2d(planes, kernel[None, None], stride=stride, padding=padding)
    return y.reshape(*x.shape[:-2], *y.shape[-2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("taps, stride, padding", CASES, ids=str)
def test_it_is_a_correlation(taps, stride, padding, sizes, dtype, passes):
    x = torch.randn(sizes, dtype=torch.float64)
    results = []
    for own, function in ((x.to(dtype), window_sum.window_sum), (x, correlated)):
        own = own.clone().requires_grad_()
        y = function(own, taps, stride, padding)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        results.append((y, *torch.autograd.grad(y, own, dy.to(own.dtype))))
    tolerance = 8 * len(taps) ** 0.5 * torch.finfo(dtype).eps * sum(map(abs, taps))
    for got, want in zip(*results):
        assert got.dtype == dtype and got.shape == want.shape
        assert torch.allclose(got.double(), want, rtol=0, atol=tolerance)
    assert passes == {"window_sum_fprop": 1, "window_sum_dgrad": 1}


@pytest.mark.parametrize("taps, stride, padding", CASES, ids=str)
def test_turned_planes_give_the_same_bits(taps, stride, padding):
    """Both passes."""
    group, size = PointGroup("D4"), 60
    while (size + 2 * padding - round(len(taps) ** 0.5)) % stride:
        size += 1
    x = torch.randn(3, size, size)
    y = ops.window_sum_fprop(x, taps, stride, padding)
    dy = torch.randn(y.shape)
    dx = ops.window_sum_dgrad(dy, taps, x.shape[-2:], stride, padding)
    for h in range(group.order):
        moved = move_space(x, group, h)
        assert torch.equal(ops.window_sum_fprop(moved, taps, stride, padding), move_space(y, group, h))
        moved = move_space(dy, group, h)
        assert torch.equal(ops.window_sum_dgrad(moved, taps, x.shape[-2:], stride, padding), move_space(dx, group, h))


@pytest.mark.parametrize("taps, stride, padding", CASES, ids=str)
def test_derivatives(taps, stride, padding, passes):
    x = torch.randn(1, 2, 7, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: window_sum.window_sum(x, taps, stride, padding), [x])
    assert torch.autograd.gradgradcheck(lambda x: window_sum.window_sum(x, taps, stride, padding), [x])
    assert min(passes.values()) > 0


def test_the_number_of_threads_changes_no_bit():
    x, taps, threads = torch.randn(8, 16, 30, 30), separable([1, 4, 6, 4, 1]), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            y = ops.window_sum_fprop(x, taps, 2, 2)
            results.append((y, ops.window_sum_dgrad(y, taps, [30, 30], 2, 2)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for other in results[1:] for pair in zip(results[0], other))


def test_what_kernels_do_not_take_goes_by_slices(passes):
    taps, stride, padding = separable([1, 2, 1]), 2, 1
    x = torch.randn(2, 4, 9, 9)
    want = correlated(x, taps, stride, padding)

    def close(got):
        return torch.allclose(got, want, rtol=0, atol=1e-5)

    assert close(window_sum.window_sum(x.to(memory_format=torch.channels_last), taps, stride, padding))
    assert close(torch.func.vmap(lambda x: window_sum.window_sum(x, taps, stride, padding))(x))
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(window_sum.window_sum(forward_ad.make_dual(x, x), taps, stride, padding)).tangent
        assert close(tangent)
    assert passes["window_sum_fprop"] == 0
    assert close(window_sum.window_sum(x.mT.contiguous().mT, taps, stride, padding)) and passes["window_sum_fprop"] == 1


def test_many_gradients_at_once(passes):
    """vmap maps the backward pass of a graph that kernels have built."""
    x = torch.randn(2, 3, 9, 9).double().requires_grad_()
    dy = torch.randn(5, 2, 3, 5, 5).double()
    want, got = (function(x, separable([1, 2, 1]), 2, 1) for function in (correlated, window_sum.window_sum))
    want = torch.autograd.grad(want, x, dy, is_grads_batched=True)[0]
    batched = torch.autograd.grad(got, x, dy, is_grads_batched=True, retain_graph=True)[0]
    mapped = torch.func.vmap(lambda dy: torch.autograd.grad(got, x, dy, retain_graph=True)[0])(dy)
    assert torch.allclose(batched, want) and torch.allclose(mapped, want) and passes["window_sum_dgrad"] > 0


def test_no_planes():
    x = torch.randn(0, 3, 8, 8, requires_grad=True)
    y = window_sum.window_sum(x, [1] * 4, 2)
    assert y.shape == (0, 3, 4, 4) and torch.autograd.grad(y.sum(), x)[0].shape == x.shape


def test_opcheck():
    x, dy = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    torch.library.opcheck(torch.ops.gconv_ext.window_sum_fprop, (x, separable([1.0, 2.0, 1.0]), 2, 1))
    torch.library.opcheck(torch.ops.gconv_ext.window_sum_dgrad, (dy, separable([1.0, 2.0, 1.0]), [8, 8], 2, 1))


@pytest.mark.parametrize("call, error_type, message", [
    (lambda x, ops: ops.window_sum_fprop(x.int(), [1.0], 1, 0), TypeError, "x must be float32 or float64, got Int"),
    (lambda x, ops: ops.window_sum_fprop(x[0, 0, 0], [1.0], 1, 0), ValueError, "x must be [..., H, W], got shape [5]"),
    (lambda x, ops: ops.window_sum_fprop(x, [], 1, 0), ValueError, "taps must be the k * k numbers of a window, got 0"),
    (lambda x, ops: ops.window_sum_fprop(x, [1.0] * 3, 1, 0), ValueError, "taps must be the k * k numbers of a window, got 3"),
    (lambda x, ops: ops.window_sum_fprop(x, [1.0, 2.0, 2.0, 1.0], 1, 0), ValueError, "taps must be the same after each turn and reflection"),
    (lambda x, ops: ops.window_sum_fprop(x, [1.0], 0, 0), ValueError, "stride must be from 1 to 2^31 - 1, got 0"),
    (lambda x, ops: ops.window_sum_fprop(x, [1.0], 1, -1), ValueError, "padding must be from 0 to 2^31 - 1, got -1"),
    (lambda x, ops: ops.window_sum_fprop(x, [1.0] * 36, 1, 0), ValueError, "planes of 5 x 5 pixels hold no window of 6 x 6"),
    (lambda x, ops: ops.window_sum_dgrad(x, [1.0], [5], 1, 0), ValueError, "input_size must be two numbers of at least 1, got [5]"),
    (lambda x, ops: ops.window_sum_dgrad(x, [1.0], [6, 5], 1, 0), ValueError, "dy must have planes of 6 x 5 pixels, got shape [2, 3, 5, 5]"),
])  # fmt: skip
def test_the_ops_check_their_own_arguments(call, error_type, message):
    with pytest.raises(error_type) as error:
        call(torch.ones(2, 3, 5, 5), torch.ops.gconv_ext)
    assert message in str(error.value)
