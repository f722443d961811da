import math

import pytest
import torch

from gconv_ext.data import CircleCrop, biased_angles, rotate, uniform_angles


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [4, 5, 28])
def test_quarter_turns(size):
    x = torch.randn(3, 2, size, size, dtype=torch.float64)
    for turns in range(-1, 5):
        assert torch.allclose(rotate(x, 90.0 * turns), x.rot90(turns, (-2, -1)), rtol=0, atol=1e-12)


def test_any_angle_by_hand():
    """A linear ramp turns into a ramp: bilinear interpolation reproduces it wherever four pixels surround the point."""
    height, width = 21, 31
    rows = torch.arange(height, dtype=torch.float64)[:, None] - 10
    columns = torch.arange(width, dtype=torch.float64) - 15
    ramp = (2 * rows - 3 * columns)[None, None]
    for degrees in (17.0, 45.0, -130.0):
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        # Counter-clockwise as displayed, rows downwards: (row, column) → (cos row − sin column, sin row + cos column).
        from_row, from_column = cos * rows + sin * columns, -sin * rows + cos * columns
        inside = (from_row.abs() <= 10) & (from_column.abs() <= 15)
        got = rotate(ramp, degrees)[0, 0]
        assert inside.sum() > 200
        assert torch.allclose(got[inside], (2 * from_row - 3 * from_column)[inside], rtol=0, atol=1e-10)
        assert (got[(from_row.abs() > 11) | (from_column.abs() > 16)] == 0).all()


def test_one_angle_for_each_image():
    x = torch.randn(3, 1, 6, 6)
    angles = torch.tensor([0.0, 90.0, 33.0])
    got = rotate(x, angles)
    for image, angle, turned in zip(x, angles, got):
        assert torch.allclose(turned, rotate(image[None], angle.item())[0], atol=1e-6)
    assert got.dtype == x.dtype and rotate(x, 30).shape == x.shape


@pytest.mark.parametrize("size", [(5, 5), (6, 6), (5, 9), (28, 28)])
def test_circle_crop(size):
    height, width = size
    x, crop = torch.randn(2, 3, *size), CircleCrop()
    y = crop(x)
    radius = (min(size) - 1) / 2
    for i in range(height):
        for j in range(width):
            inside = (i - (height - 1) / 2) ** 2 + (j - (width - 1) / 2) ** 2 <= radius**2
            assert torch.equal(y[..., i, j], x[..., i, j] if inside else torch.zeros(2, 3))
    assert torch.equal(crop(x.rot90(1, (-2, -1))), y.rot90(1, (-2, -1))) and torch.equal(crop(x.flip(-1)), y.flip(-1))
    assert torch.equal(crop(x[0, 0]), y[0, 0])


def test_a_circle_hides_the_rotation():
    """What lies in the circle stays in it: no pixel of it comes from outside the image."""
    ones = torch.ones(1, 1, 29, 29, dtype=torch.float64)
    inside = CircleCrop()(ones) == 1
    for degrees in range(0, 360, 7):
        assert rotate(ones, float(degrees))[inside].min() > 1 - 1e-12


@pytest.mark.parametrize("sigma", [20, 40])
def test_biased_angles(sigma):
    angles = biased_angles(20000, sigma, generator())
    assert angles.shape == (20000,) and angles.dtype == torch.float32
    # Five standard errors: fewer than one seed in a million fails.
    assert abs(angles.mean().item() - 45) < 5 * sigma / 20000**0.5
    assert abs(angles.std().item() - sigma) < 5 * sigma / 40000**0.5
    assert torch.equal(angles, biased_angles(20000, sigma, generator()))
    assert not torch.equal(angles, biased_angles(20000, sigma, generator(1)))
    assert (biased_angles(3, 0, generator(), mean=10.0) == 10).all()


def test_uniform_angles():
    angles = uniform_angles(20000, generator())
    assert 0 <= angles.min() and angles.max() < 360
    assert (angles.view(20000).div(36).long().bincount() - 2000).abs().max() < 5 * (20000 * 0.1 * 0.9) ** 0.5
    assert torch.equal(angles, uniform_angles(20000, generator()))


@pytest.mark.parametrize(
    "make, error_type, message",
    [
        (lambda: rotate(torch.ones(3, 3), 1.0), ValueError, "images must have 4 dimensions [N, C, H, W]"),
        (lambda: rotate(torch.ones(1, 1, 3, 3, dtype=torch.uint8), 1.0), TypeError, "real floating-point dtype"),
        (lambda: rotate(torch.ones(2, 1, 3, 3), torch.ones(3)), ValueError, "one for each of 2 images, got shape (3,)"),
        (lambda: biased_angles(0, 20, generator()), ValueError, "count must be at least 1"),
        (lambda: biased_angles(1, -1, generator()), ValueError, "sigma must be at least 0 degrees, got -1"),
        (lambda: uniform_angles(0, generator()), ValueError, "count must be at least 1"),
    ],
)
def test_bad_arguments(make, error_type, message):
    with pytest.raises(error_type) as error:
        make()
    assert message in str(error.value)
