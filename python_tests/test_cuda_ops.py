"""The ops on a GPU against the same ops on the CPU."""

import cases
import pytest
import torch

from gconv_ext import ops

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU; csrc/cuda's tests run the kernels on the CPU")
DEVICE = "cuda"


@pytest.fixture(autouse=True, scope="module")
def _cuda_kernels_are_there():
    # Where there is a GPU the suite must not pass for lack of kernels.
    assert ops.build_info()["cuda"].startswith("built"), ops.build_info()["cuda"]


def bank_of(kind, group, **options):
    _, weight, *relaxed, _ = cases.make(kind, group, **options)
    return weight, relaxed[0] if relaxed else None


def assert_close(got, expected):
    assert got.shape == expected.shape and got.dtype == expected.dtype
    error = (got.cpu().double() - expected.double()).abs().max()
    assert error <= 4 * torch.finfo(expected.dtype).eps * expected.double().abs().max()


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
    gradients = ops.expand_filter_backward(grad, weight, relaxed_weight, *options, mask)
    for got, expected in list(zip(gradients_there, gradients))[: sum(mask)]:
        assert_close(got, expected)
    assert torch.equal(ops.expand_filter(there, relaxed_there, *options), filter_there)
    again = ops.expand_filter_backward(grad_there, there, relaxed_there, *options, mask)
    assert all(torch.equal(*pair) for pair in zip(again, gradients_there))


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
