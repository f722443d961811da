"""Tensors of more than 2³¹ numbers: what lies beyond is found, read and written, exactly as in a small tensor.

The numbers are small integers, so that every sum is exact in any order.  Zeros that nobody writes to take no memory; a test
needs that of its results and of the kernels' scratch, and is skipped where it is not free.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from gconv_ext import functional, ops

LIMIT = 2**31
OPTIONS = ([1, 1], [1, 1], [1, 1], 1)  # stride, padding, dilation, groups


def available() -> int:
    """Bytes of memory that this process may still take; 0 where the system does not say."""

    def number(path, key=""):
        lines = Path(path).read_text().splitlines() if Path(path).exists() else []
        words = [line.removeprefix(key).split()[0] for line in lines if line.startswith(key)]
        return int(words[0]) if words and words[0].isdigit() else None

    free = (number("/proc/meminfo", "MemAvailable:") or 0) << 10
    limit, used = number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory.current")
    return free if limit is None or used is None else min(free, limit - used)


def needs(gigabytes):
    return pytest.mark.skipif(f"available() < {gigabytes}e9", reason=f"needs {gigabytes} GB of free memory")


def zeros(*shape):
    """Pages that nobody writes to take no memory: NumPy's zeros are calloc's."""
    return torch.from_numpy(np.zeros(shape, np.int16)).view(torch.bfloat16)


def integers(*shape):
    return torch.randint(-2, 3, shape).bfloat16()


@needs(7)
@pytest.mark.parametrize("in_fields, out_fields", [(8, 1), (1, 8)])
def test_many_images(in_fields, out_fields):
    """x, or y and dy, go beyond 2³¹.  Images lie apart, so that each is what it is alone."""
    batch = LIMIT // (8 * 4 * 32 * 32) + 3
    x, dy = zeros(batch, in_fields, 4, 32, 32), zeros(batch, out_fields, 4, 32, 32)
    weight = integers(out_fields, in_fields, 4, 3, 3)
    some = [0, batch // 2, batch - 4, batch - 3, batch - 1]
    x[some], dy[some] = integers(5, *x.shape[1:]), integers(5, *dy.shape[1:])

    def passes(x, dy):
        y = ops.fprop("irrep", x, weight, None, None, None, "C4", "output", *OPTIONS, False)
        # dx would be beyond 2³¹ with x, and is in test_one_image_dgrad.
        dx = ops.dgrad("irrep", dy, weight, None, None, "C4", "output", [32, 32], *OPTIONS) if in_fields == 1 else None
        return y, dx, ops.wgrad("irrep", x, dy, None, None, "C4", "output", 3, *OPTIONS)

    y, dx, dweight = passes(x, dy)
    want, want_dx, want_dweight = passes(x[some], dy[some])
    assert max(x.numel(), y.numel()) > LIMIT
    assert torch.equal(y[some], want) and torch.equal(dweight, want_dweight) and want.any() and want_dweight.any()
    assert dx is None or torch.equal(dx[some], want_dx)
    assert not y[[1, batch - 2]].any()


SIDE = 5840  # of a pixel map; the last of 64 such planes starts beyond 2³¹


@pytest.fixture
def one_thread():
    """Every thread that works on an image has a float32 copy of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def corners(fields):
    """One image that is zero but for its last 40 rows and columns, and these alone."""
    assert SIDE**2 * 63 > LIMIT
    image, corner = zeros(1, fields, 4, SIDE, SIDE), integers(1, fields, 4, 40, 40)
    image[..., -40:, -40:] = corner
    return image, corner


@needs(11)
@pytest.mark.parametrize("in_fields, out_fields", [(16, 1), (1, 16)])
def test_one_image_fprop(in_fields, out_fields, one_thread):
    weight = integers(out_fields, in_fields, 4, 3, 3)
    y, want = (ops.fprop("irrep", x, weight, None, None, None, "C4", "output", *OPTIONS, False) for x in corners(in_fields))
    assert torch.equal(y[..., -40:, -40:], want) and want.any()
    assert not y[..., :40, :].any()


@needs(7)
def test_one_image_dgrad(one_thread):
    weight = integers(1, 16, 4, 3, 3)
    dx, want = (ops.dgrad("irrep", dy, weight, None, None, "C4", "output", list(dy.shape[-2:]), *OPTIONS) for dy in corners(1))
    assert torch.equal(dx[..., -40:, -40:], want) and want.any()
    assert not dx[..., :40, :].any()


@needs(11)
def test_one_image_wgrad(one_thread):
    """x beyond 2³¹ would take another 10 GB and as long, and goes through fprop's copy of an image."""
    dweight, want = (ops.wgrad("irrep", x, dy, None, None, "C4", "output", 3, *OPTIONS) for x, dy in zip(corners(1), corners(16)))
    assert torch.equal(dweight, want) and want.any()


@needs(7)
def test_expand_filter():
    fields = 3862
    weight, gradient = zeros(fields, fields, 4, 3, 3), zeros(4 * fields, 4 * fields, 3, 3)
    assert gradient.numel() > LIMIT
    some = [0, fields - 1]
    weight[some], gradient.unflatten(0, (-1, 4))[some] = integers(2, *weight.shape[1:]), integers(2, 4, *gradient.shape[1:])

    def passes(weight, gradient):
        weight = weight.detach().requires_grad_()
        filter = functional.expand_filter(weight, group="C4")
        return filter.detach().unflatten(0, (-1, 4)), *torch.autograd.grad(filter, weight, gradient)

    filter, dweight = passes(weight, gradient)
    want, want_dweight = passes(weight[some], gradient.unflatten(0, (-1, 4))[some].flatten(0, 1))
    assert torch.equal(filter[some], want) and torch.equal(dweight[some], want_dweight) and want.any() and want_dweight.any()
    assert not filter[fields - 2].any()
