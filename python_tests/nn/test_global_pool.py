import pytest
import torch

from gconv_ext import equivariance_error, nn


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 5), (3, 6), (6, 3), (7, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_global_average(group, size, dtype):
    x = torch.randn(2, 3, group.order, *size).to(dtype)
    pool = nn.SpatialGlobalPool2d("mean")
    error = equivariance_error(pool, x, group)
    assert (error.relative == 0).all() and pool(x).shape == (2, 3, group.order, 1, 1)
    want = x.double().mean((-2, -1), keepdim=True)
    assert (pool(x).double() - want).abs().max() <= 4 * torch.finfo(dtype).eps * x.double().abs().max()
    for strided in (x.contiguous(memory_format=torch.channels_last_3d), x.transpose(0, 1).contiguous().transpose(0, 1)):
        assert torch.allclose(pool(strided), pool(x))
    assert torch.equal(nn.SpatialGlobalPool2d("max")(x), x.amax((-2, -1), keepdim=True))
    y = torch.randn(1, 1, 1, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pool, y)


def test_a_plain_mean_would_not_be_exact():
    """What SpatialGlobalPool2d is for."""
    x = torch.randn(2, 8, 4, 9, 9)
    assert equivariance_error(lambda x: x.mean((-2, -1), keepdim=True), x, "C4").worst > 0
    assert equivariance_error(torch.nn.AdaptiveAvgPool2d(1), x[:, :, 0], "C4").worst > 0


def test_bad_argument():
    with pytest.raises(ValueError, match="reduce must be 'max' or 'mean', got 'sum'"):
        nn.SpatialGlobalPool2d("sum")
