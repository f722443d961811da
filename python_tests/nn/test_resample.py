import pytest
import torch
import torch.nn.functional as F

from gconv_ext import equivariance_error, nn


@pytest.mark.parametrize("k, stride", [(1, 2), (2, 2), (3, 2), (4, 1), (5, 3)])
@pytest.mark.parametrize("size", [(7, 7), (8, 11)])
def test_blur_pool_is_a_binomial_filter_with_reflected_edges(k, stride, size):
    taps = torch.ones(1).double()
    for _ in range(k - 1):
        taps = F.pad(taps, (0, 1)) / 2 + F.pad(taps, (1, 0)) / 2
    x = torch.randn(2, 3, 4, *size).double()
    padded = F.pad(x.flatten(1, 2), (k // 2,) * 4, "reflect")
    want = F.conv2d(padded, torch.outer(taps, taps).expand(12, 1, k, k), stride=stride, groups=12)
    assert torch.allclose(nn.SpatialBlurPool2d(k, stride)(x).flatten(1, 2), want, rtol=0, atol=1e-14)


def test_max_blur_pool_is_its_two_steps():
    x = torch.randn(2, 3, 4, 8, 8)
    want = nn.SpatialBlurPool2d(5, 2)(F.max_pool2d(x.flatten(1, 2), 2, 1).unflatten(1, (3, 4)))
    assert torch.equal(nn.SpatialMaxBlurPool2d(2, 2, 5)(x), want)


@pytest.mark.parametrize(
    "layer, fits", [(nn.SpatialBlurPool2d(3), 9), (nn.SpatialBlurPool2d(2), 8), (nn.SpatialMaxBlurPool2d(), 8)]
)
def test_sizes_that_do_not_fit_break_equivariance(layer, fits):
    assert equivariance_error(layer, torch.randn(1, 1, 4, fits, fits), "C4").worst == 0
    assert equivariance_error(layer, torch.randn(1, 1, 4, fits + 1, fits + 1), "C4").worst > 1e-2


def test_blur_pool_shifts_less_than_max_pool():
    """What it is for: shifted by one pixel, pooled maps change less."""
    x = torch.randn(4, 4, 4, 24, 24)
    shifted = x.roll(1, -1)

    def change(layer):
        inner = [layer(map)[..., 3:-3, 3:-3] for map in (x, shifted)]
        return (inner[0] - inner[1]).norm() / inner[0].std()

    assert change(nn.SpatialMaxBlurPool2d(2, 2, 5)) < 0.6 * change(nn.SpatialMaxPool2d(2))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("factor", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(1, 1), (5, 4)])
def test_upsampling_is_torchs(mode, factor, size):
    x = torch.randn(2, 3, 4, *size).double()
    want = F.interpolate(x.flatten(1, 2), scale_factor=factor, mode=mode).unflatten(1, (3, 4))
    assert torch.allclose(nn.SpatialUpsample2d(factor, mode)(x), want, rtol=0, atol=1e-12)


def test_gaussian_of_any_width():
    """Its taps by the equation, and one tap for a σ whose square is 0 in float64."""
    bell = torch.exp(-(torch.arange(-4, 5).double() ** 2) / (2 * 1.3**2))
    want = bell[:, None] * bell / bell.sum() ** 2
    got = torch.tensor(nn.SpatialFilterPool2d.gaussian(1.3).taps, dtype=torch.float64)
    assert torch.allclose(got, want, rtol=0, atol=1e-15)
    assert nn.SpatialFilterPool2d.gaussian(1e-200).taps == [[1.0]]


@pytest.mark.parametrize("call, error_type, message", [
    (lambda: nn.SpatialFilterPool2d([[1, 2], [1]]), ValueError, "taps must be k rows of k numbers, got rows of [2, 1]"),
    (lambda: nn.SpatialFilterPool2d([]), ValueError, "taps must be k rows of k numbers, got rows of []"),
    (lambda: nn.SpatialFilterPool2d([[1, 2], [3, 1]]), ValueError, "taps must be the same after each turn and reflection"),
    (lambda: nn.SpatialFilterPool2d([["a"]]), TypeError, "taps must be k rows of k numbers, got [['a']]"),
    (lambda: nn.SpatialFilterPool2d(3), TypeError, "taps must be k rows of k numbers, got 3"),
    (lambda: nn.SpatialFilterPool2d([[float("nan")]]), ValueError, "taps must be finite, got [[nan]]"),
    (lambda: nn.SpatialFilterPool2d.gaussian("a"), ValueError, "sigma must be positive and finite, got 'a'"),
    (lambda: nn.SpatialFilterPool2d.gaussian(0), ValueError, "sigma must be positive and finite, got 0"),
    (lambda: nn.SpatialBlurPool2d(0), ValueError, "kernel_size must be at least 1, got 0"),
    (lambda: nn.SpatialBlurPool2d(3, 1.5), TypeError, "stride must be an int, got float"),
    (lambda: nn.SpatialBlurPool2d(5)(torch.ones(1, 1, 4, 9, 2)), ValueError, "edges of 2 pixels are reflected"),
    (lambda: nn.SpatialMaxBlurPool2d(3)(torch.ones(1, 1, 4, 2, 2)), ValueError, "x is too small"),
    (lambda: nn.SpatialUpsample2d(0.5), TypeError, "scale_factor must be an int, got float"),
    (lambda: nn.SpatialUpsample2d(2, "bicubic"), ValueError, "mode must be 'nearest' or 'bilinear', got 'bicubic'"),
])  # fmt: skip
def test_refusals(call, error_type, message):
    with pytest.raises(error_type) as error:
        call()
    assert message in str(error.value)
