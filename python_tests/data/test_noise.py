import math

import numpy as np
import pytest
import torch

from gconv_ext.data import NOISES, noise_map, noised, noisy_split, quarter_turned
from gconv_ext.data.noise import correlated_normal
from gconv_ext.groups import PointGroup, move_space


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(28, 28), (9, 14)])
def test_maps_have_mean_one_and_the_described_waves(size):
    assert torch.equal(noise_map("iso", *size), torch.ones(size))
    assert torch.equal(noise_map("none", *size), torch.zeros(size))
    aniso = noise_map("aniso", *size)
    assert aniso.mean() == pytest.approx(1, abs=1e-6) and aniso.min() >= 0
    left, right = aniso[:, : size[1] // 2], aniso[:, size[1] // 2 :]
    assert (left[1:] < left[:-1]).all() and (left == left[:, :1]).all()  # half a wavelength: falls from top to bottom
    assert (right == right[:1]).all()


def test_two_quieter_bands_on_the_right():
    wave = noise_map("aniso")[0, 14:]
    quiet = [j for j in range(1, 13) if wave[j] < wave[j - 1] and wave[j] <= wave[j + 1]]
    assert len(quiet) == 2 and wave[quiet].max() < 0.05 * wave.max()


def test_the_anisotropic_map_has_no_symmetry():
    aniso = noise_map("aniso")
    for moved in (torch.rot90(aniso, 1), torch.rot90(aniso, 2), aniso.flip(0), aniso.T):
        assert (moved - aniso).abs().max() > 0.5


@pytest.mark.parametrize("noise, kept", [
    ("iso", range(8)), ("aniso", [0]), ("linear", [0, 4]), ("stripes", [0, 2, 4, 6]), ("radial", range(8)),
])  # fmt: skip
def test_what_symmetry_each_map_keeps(noise, kept):
    """Element 4 of D4 is the mirror m, element 6 is r² m."""
    strength = noise_map(noise)
    for g in range(8):
        difference = (move_space(strength, PointGroup("D4"), g) - strength).abs().max()
        assert difference < 1e-5 if g in kept else difference > 0.5, g


@pytest.mark.parametrize("noise", NOISES[1:])
@pytest.mark.parametrize("size", [(28, 28), (9, 14)])
def test_all_maps_have_mean_variance_one(noise, size):
    strength = noise_map(noise, *size)
    assert strength.shape == size and strength.mean() == pytest.approx(1, abs=1e-6) and strength.min() >= 0
    assert noise == "iso" or strength.max() > 1.2


def test_the_described_waves_of_the_other_maps():
    linear, stripes, radial = (noise_map(noise) for noise in ("linear", "stripes", "radial"))
    steps = linear.diff(dim=0)
    assert (steps < 0).all() and torch.allclose(steps, steps[:1].expand(27, 28), atol=1e-6)
    column = stripes[:, 0]
    assert (stripes == stripes[:, :1]).all()
    assert sum(column[i] < 1 <= column[i - 1] for i in range(1, 28)) == 3  # it falls three times: three wavelengths
    assert radial.argmax() in (0, 27, 28 * 27, 28 * 28 - 1) and (radial[14, 14:].diff() > 0).all()


@pytest.mark.parametrize("correlation", [1.0, 2.5])
def test_correlated_noise(correlation):
    """4,000 images: standard errors are 1.6% for a correlation, 2.2% for a variance; tolerances are five of them."""
    samples = correlated_normal((4000, 1, 12, 14), correlation, generator())[:, 0]
    assert samples.mean().abs() < 0.02
    assert ((samples.var(0) - 1).abs() < 0.12).all()  # at the edges as in the middle
    centre = samples[:, 6, 6]
    for down, right in ((0, 1), (2, 0), (1, 1), (2, 3), (-6, -6)):
        want = math.exp(-(down**2 + right**2) / (2 * correlation**2))
        assert (centre * samples[:, 6 + down, 6 + right]).mean().item() == pytest.approx(want, abs=0.08)
    again = [correlated_normal((3, 1, 5, 5), correlation, generator(3)) for _ in range(2)]
    assert torch.equal(*again)


def test_without_correlation_the_draws_are_those_of_white_noise():
    white = torch.randn(2, 1, 4, 4, generator=generator(1))
    assert torch.equal(correlated_normal((2, 1, 4, 4), 0, generator(1)), white)
    tiny = correlated_normal((2000, 1, 3, 3), 0.2, generator())
    assert abs((tiny[..., 1:] * tiny[..., :-1]).mean()) < 0.03


@pytest.mark.parametrize("noise", ["aniso", "radial"])
def test_correlation_keeps_the_variance_of_the_map(noise):
    """12,000 samples a pixel: the standard error of a variance is 1.3%."""
    samples = noised(torch.zeros(12000, 1, 10, 10), noise, 0.3, generator(), correlation=2.0)
    want = 0.09 * noise_map(noise, 10, 10)
    assert ((samples.var(0)[0] - want).abs() <= 0.07 * want + 1e-9).all()


@pytest.mark.parametrize("noise", NOISES[1:])
def test_sampled_variance_follows_the_map(noise):
    """20,000 samples a pixel: the standard error of a variance is 1%, so 5% is beyond five of them for any pixel."""
    samples = noised(torch.zeros(20000, 1, 28, 28), noise, 0.3, generator())
    want = 0.09 * noise_map(noise)
    assert ((samples.var(0)[0] - want).abs() <= 0.05 * want + 1e-9).all()
    assert samples.var(0).mean() == pytest.approx(0.09, rel=0.01)


def test_none_leaves_the_image():
    image = torch.rand(2, 1, 28, 28)
    assert torch.equal(noised(image, "none", 0.3, generator()), image)


def test_quarter_turns_are_drawn_evenly_and_exact():
    image = torch.rand(1, 1, 28, 28).expand(4000, -1, -1, -1)
    turned = quarter_turned(image, generator())
    counts = [(turned == torch.rot90(image, k, (-2, -1))).flatten(1).all(1).sum().item() for k in range(4)]
    assert sum(counts) == 4000 and min(counts) > 880  # expected 1000 each, standard deviation 27


def test_splits_are_seeded_and_differ():
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28)).astype(np.uint8)
    noisy, clean = noisy_split(images, "train", "aniso", 0.2, 1)
    again, _ = noisy_split(images, "train", "aniso", 0.2, 1)
    assert torch.equal(noisy, again) and noisy.shape == (50, 1, 28, 28) and 0 <= clean.min() and clean.max() <= 1
    for split, seed in (("test", 1), ("train", 2)):
        assert not torch.equal(noisy_split(images, split, "aniso", 0.2, seed)[1], clean)
    # The turns do not depend on the noise: every noise setting sees the same digits.
    assert torch.equal(noisy_split(images, "train", "iso", 0.3, 1)[1], clean)


def test_unknown_noise():
    with pytest.raises(ValueError, match="noise must be one of none, iso, aniso, linear, stripes, radial, got 'salt'"):
        noise_map("salt")
