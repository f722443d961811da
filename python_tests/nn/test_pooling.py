import pytest
import torch
import torch.nn.functional as F

from gconv_ext import equivariance_error, nn
from gconv_ext.window_sum import separable, window_sum


@pytest.mark.parametrize("sizes", [(2, 3, 4, 5, 7), (2, 3, 8, 7, 5), (1, 2, 2, 6, 6), (2, 3, 5, 1, 4)])
def test_pools_are_their_equations(sizes):
    """|P| = 5 is no point group's order: right all the same."""
    x = torch.randn(sizes).double()
    for layer, want in (
        (nn.GroupPool("max"), x.amax(2)), (nn.GroupPool("mean"), x.mean(2)),
        (nn.GroupGlobalPool("max"), x.amax((2, 3, 4))), (nn.GroupGlobalPool("mean"), x.mean((2, 3, 4))),
        (nn.SpatialGlobalPool2d("max"), x.amax((3, 4), keepdim=True)),
        (nn.SpatialGlobalPool2d("mean"), x.mean((3, 4), keepdim=True)),
    ):  # fmt: skip
        assert torch.allclose(layer(x), want, rtol=0, atol=1e-14) and layer(x).shape == want.shape


@pytest.mark.parametrize(
    "k, stride, padding", [(1, 1, 0), (2, 2, 0), (2, 1, 1), (3, 2, 1), (4, 2, 2), (5, 3, 2), (7, 7, 0)]
)
@pytest.mark.parametrize("size", [(7, 7), (8, 11)])
def test_average_pool_is_torchs(k, stride, padding, size):
    x = torch.randn(2, 3, 4, *size).double()
    got = nn.SpatialAvgPool2d(k, stride, padding)(x)
    want = F.avg_pool2d(x.flatten(1, 2), k, stride, padding).unflatten(1, (3, 4))
    assert got.shape == want.shape and torch.allclose(got, want, rtol=0, atol=1e-14)


def test_a_window_sum_is_a_correlation():
    x, taps = torch.randn(1, 1, 9, 12).double(), torch.tensor([1.0, 3, 5, 3, 1]).double()
    want = F.conv2d(x, torch.outer(taps, taps)[None, None], stride=2)
    assert torch.allclose(window_sum(x, separable([1, 3, 5, 3, 1]), 2), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "layer, fits", [(nn.SpatialAvgPool2d(2), 8), (nn.SpatialMaxPool2d(2), 8), (nn.SpatialAvgPool2d(3, 2, 1), 9)]
)
def test_a_stride_that_does_not_fit_breaks_equivariance(layer, fits):
    """Paper 3: (i + 2p − k) mod s must be 0."""
    assert equivariance_error(layer, torch.randn(1, 1, 4, fits, fits), "C4").worst == 0
    assert equivariance_error(layer, torch.randn(1, 1, 4, fits + 1, fits + 1), "C4").worst > 1e-2


def test_the_global_mean_of_torch_is_not_exact():
    """What the folded sums are for: PyTorch's own order of summation depends on the orientation."""
    x = torch.randn(8, 8, 4, 28, 28)
    assert equivariance_error(lambda x: x.mean((2, 3, 4)), x, "C4").worst > 0
    assert equivariance_error(nn.GroupGlobalPool("mean"), x, "C4").worst == 0


@pytest.mark.parametrize("call, message", [
    (lambda: nn.GroupGlobalPool("sum"), "reduce must be 'max' or 'mean', got 'sum'"),
    (lambda: nn.SpatialGlobalPool2d(None), "reduce must be 'max' or 'mean', got None"),
    (lambda: nn.SpatialAvgPool2d(4)(torch.ones(1, 1, 4, 5, 3)), "its 5 x 3 pixels hold no window of 4 x 4"),
])  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
