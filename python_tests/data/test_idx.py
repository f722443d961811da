import gzip
import struct
import sys
import types

import numpy as np
import pytest

from gconv_ext.data import load_digits, read_idx
from gconv_ext.errors import InputError


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_set(folder, gz=False, train=60, test=20):
    """A small set in the format of MNIST's four files; returns the images by prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, images = np.random.default_rng(0), {}
    for prefix, count in (("train", train), ("t10k", test)):
        images[prefix] = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images[prefix]), ("labels-idx1", labels)):
            data = idx_bytes(array)
            path = folder / f"{prefix}-{kind}-ubyte{'.gz' if gz else ''}"
            path.write_bytes(gzip.compress(data) if gz else data)
    return images


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("dataset, subfolder", [("mnist", "."), ("mnist", "MNIST/raw"), ("fashion", "FashionMNIST/raw")])
def test_whole_sets(tmp_path, gz, dataset, subfolder):
    images = write_set(tmp_path / subfolder, gz)
    digits = load_digits(tmp_path, dataset)
    assert [len(digits.splits[split][1]) for split in ("train", "validation", "test")] == [55, 5, 20]
    assert np.array_equal(np.concatenate([digits.splits["train"][0], digits.splits["validation"][0]]), images["train"])
    assert np.array_equal(digits.splits["test"][0], images["t10k"])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x", b"", "not an idx file of unsigned bytes (starts with nothing)"),
        ("x", b"PNG data", "not an idx file of unsigned bytes (starts with 50 4e 47 20)"),
        ("x", struct.pack(">BBBBI", 0, 0, 0x0D, 1, 3), "not an idx file of unsigned bytes"),
        ("x", idx_bytes(np.zeros((3, 4), np.uint8))[:-1], "holds 11 bytes of data, and its header says 12 [3, 4]"),
        ("x", idx_bytes(np.zeros((3, 4), np.uint8)) + b"?", "holds 13 bytes of data, and its header says 12 [3, 4]"),
        ("x.gz", b"not gzip", "not a whole gzip file"),
        ("x.gz", gzip.compress(idx_bytes(np.zeros(999, np.uint8)), mtime=0)[:-9], "not a whole gzip file"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        read_idx(tmp_path / name)
    assert message in str(error.value) and str(tmp_path / name) in str(error.value)


def spoil(folder, name, array):
    (folder / name).write_bytes(idx_bytes(array))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "train-images-idx3-ubyte").unlink(), "no train-images-idx3-ubyte or"),
        (lambda f: (f / "t10k-labels-idx1-ubyte").unlink(), "neither this file nor its .gz is there"),
        (lambda f: spoil(f, "train-labels-idx1-ubyte", np.zeros(59, np.uint8)), "60 images and 59 labels in the train files"),
        (lambda f: spoil(f, "train-labels-idx1-ubyte", np.full(60, 10, np.uint8)), "labels must be 0 to 9, got 10"),
        (lambda f: spoil(f, "train-images-idx3-ubyte", np.zeros((60, 28, 27), np.uint8)), "expected [N, 28, 28] images"),
        (lambda f: spoil(f, "train-labels-idx1-ubyte", np.zeros((60, 1), np.uint8)), "expected [N] labels, got shape [60, 1]"),
    ],
)
def test_wrong_sets(tmp_path, change, message):
    write_set(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError) as error:
        load_digits(tmp_path)
    assert message in str(error.value)


def test_options_that_do_not_go_together(tmp_path):
    for options in (dict(dataset="fashion"), dict(download=True), dict(data_dir=tmp_path, dataset="cifar")):
        with pytest.raises(InputError):
            load_digits(**options)


@pytest.mark.parametrize("dataset, name", [("mnist", "MNIST"), ("fashion", "FashionMNIST")])
def test_download_with_torchvision(tmp_path, monkeypatch, dataset, name):
    """torchvision is asked for both files of the dataset, and its folder is read; a stand-in writes what it would."""
    asked = []

    def download(root, train, download):
        asked.append((root, train, download))
        write_set(root / name / "raw")

    stand_in = types.SimpleNamespace(datasets=types.SimpleNamespace(**{name: download}))
    monkeypatch.setitem(sys.modules, "torchvision", stand_in)
    assert len(load_digits(tmp_path, dataset, download=True).splits["train"][1]) == 55
    assert asked == [(tmp_path, True, True), (tmp_path, False, True)]


def test_download_without_torchvision(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match="download needs torchvision"):
        load_digits(tmp_path, download=True)


def test_shipped_digits():
    digits = load_digits()
    for split, per_class in (("train", 500), ("validation", 100), ("test", 200)):
        images, labels = digits.splits[split]
        assert images.shape == (10 * per_class, 28, 28) and images.dtype == np.uint8
        assert np.bincount(labels).tolist() == [per_class] * 10
    together = np.concatenate([digits.splits[split][0].reshape(-1, 784) for split in digits.splits])
    assert len(np.unique(together, axis=0)) == 8000
    assert digits.sha256() == "6087df0aa53dc75d26e9cbd33c38b467e23946e75667d1633be1ed706982a638"
