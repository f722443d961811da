"""What of a set's images an experiment uses, and what its networks see of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gconv_ext.data import CircleCrop, load_digits
from gconv_ext.experiments.subsampling_config import SubsamplingConfig
from gconv_ext.experiments.turned_images import TurnedImages, augmented, prepared


def turned_set(config, split="train", rotation=None):
    return TurnedImages(config, load_digits(), split, rotation or config.rotation)


def test_angles_of_the_splits():
    """Drawn once for each image, anew for each seed and split."""
    config = SubsamplingConfig("p4cnn", rotation="normal", sigma=40.0)
    train, test = turned_set(config), turned_set(config, "test", "uniform")
    assert train.degrees.mean().item() == pytest.approx(45, abs=2)
    assert train.degrees.std().item() == pytest.approx(40, abs=2)
    assert torch.equal(train.degrees, turned_set(config).degrees)
    assert not torch.equal(train.degrees, turned_set(replace(config, seed=1)).degrees)
    assert not torch.equal(train.degrees[:900], turned_set(config, "validation").degrees[:900])
    uniform = turned_set(replace(config, rotation="uniform")).degrees
    for degrees in (test.degrees, uniform):
        assert degrees.min() >= 0 and degrees.max() < 360 and degrees.mean().item() == pytest.approx(180, abs=10)
    assert not turned_set(replace(config, rotation="none")).degrees.any()


def test_images_of_the_splits():
    """`train_images` of them at most, evenly spread."""
    images, labels = load_digits().splits["train"]
    chosen = turned_set(SubsamplingConfig("p4cnn", train_images=1000, batch_size=8))
    assert len(chosen) == 1000
    for i in (0, 1, 999):
        image, label, degrees = chosen[i]
        assert np.array_equal(image[0], images[5 * i]) and label == labels[5 * i] and degrees == 0
    assert len(turned_set(SubsamplingConfig("p4cnn", validation_images=2000), "validation")) == 1000  # there are no more


def test_preparation():
    """Scaled to the size, turned, the corners hidden, normalised; upright images of the right size to the bit."""
    pixels = torch.tensor(load_digits().splits["test"][0][:4]).unsqueeze(1)
    config = SubsamplingConfig("p4cnn", circle_crop=False)
    upright = pixels.float() / 255
    assert torch.equal(prepared(config, pixels, 0.0), upright)
    assert torch.allclose(prepared(config, pixels, torch.tensor([0.0, 90, 180, 270])), torch.cat(
        [upright[i : i + 1].rot90(i, (-2, -1)) for i in range(4)]
    ), atol=1e-5)  # fmt: skip
    white = torch.full((1, 1, 28, 28), 255).byte()
    cropped = prepared(SubsamplingConfig("p4cnn"), white, 33.0)
    assert cropped[0, 0, 0, 0] == 0 and torch.equal(cropped, CircleCrop()(prepared(config, white, 33.0)))
    for size in (27, 29):
        scaled = prepared(replace(config, size=size), pixels, 0.0)
        expected = F.interpolate(upright, (size, size), mode="bilinear", antialias=True)
        assert scaled.shape[-2:] == (size, size) and torch.equal(scaled, expected)
    normalised = prepared(replace(config, dataset="cifar10"), white.expand(-1, 3, -1, -1), 0.0)[0, :, 0, 0]
    expected = [(1 - 0.4914) / 0.2470, (1 - 0.4822) / 0.2435, (1 - 0.4465) / 0.2616]
    assert normalised.tolist() == pytest.approx(expected)


def test_augmentation():
    """Each window lies in the padded image, all shifts and both mirrorings come, and channels stay together."""
    config = SubsamplingConfig("p4_resnet44", size=6, dataset="cifar10", crop_padding=2, flip=True)
    x = torch.arange(1.0, 3 * 36 + 1).view(1, 3, 6, 6).expand(400, -1, -1, -1)
    padded, found = F.pad(x[:1], [2] * 4)[0], set()
    windows = {
        (row, column, flip): window.flip(-1) if flip else window
        for row in range(5) for column in range(5) for flip in (False, True)
        for window in [padded[:, row : row + 6, column : column + 6]]
    }  # fmt: skip
    for image in augmented(config, x):
        found.add(next(where for where, window in windows.items() if torch.equal(window, image)))
    assert found == set(windows)
    assert torch.equal(augmented(replace(config, crop_padding=0, flip=False), x), x)
