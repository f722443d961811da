import numpy as np
import pytest
import torch

from gconv_ext.data import noise_map, noised, noisy_split, quarter_turned


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


@pytest.mark.parametrize("noise", ["iso", "aniso"])
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
    with pytest.raises(ValueError, match="noise must be one of none, iso, aniso, got 'salt'"):
        noise_map("salt")
