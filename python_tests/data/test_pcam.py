import os
import pickle
import sys

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gconv_ext.data import load_pcam
from gconv_ext.errors import InputError

COUNTS = {"train": 6, "valid": 3, "test": 2}


def path(folder, split, part):
    return folder / f"camelyonpatch_level_2_split_{split}_{part}.h5"


def save(file, name, array):
    with h5py.File(file, "w") as opened:
        opened.create_dataset(name, data=array, compression="gzip")


def write(folder):
    """A small set in the format of the six files; {split: (x, y)}."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, written = np.random.default_rng(0), {}
    for split, count in COUNTS.items():
        x = rng.integers(0, 256, (count, 96, 96, 3)).astype(np.uint8)
        y = (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
        save(path(folder, split, "x"), "x", x)
        save(path(folder, split, "y"), "y", y)
        written[split] = x, y.reshape(-1)
    return written


@pytest.mark.parametrize("folder", [".", "pcam"])
def test_patches_and_labels(tmp_path, folder):
    written = write(tmp_path / folder)
    sets = load_pcam(tmp_path)
    for split, (x, y) in zip(("train", "validation", "test"), written.values()):
        found = sets.splits[split]
        assert len(found) == len(y)
        for i, (image, label) in enumerate(found[j] for j in range(len(found))):
            assert image.dtype == torch.uint8 and label == y[i]
            assert np.array_equal(image.permute(1, 2, 0), x[i])


def test_read_by_workers_after_a_read_here(tmp_path):
    x, y = write(tmp_path)["train"]
    patches = load_pcam(tmp_path).splits["train"]
    patches[0]
    assert pickle.loads(pickle.dumps(patches))[1][1] == y[1]
    batches = list(DataLoader(patches, 2, num_workers=2))
    assert torch.equal(torch.cat([images for images, _ in batches]), torch.from_numpy(x).permute(0, 3, 1, 2))
    assert torch.cat([labels for _, labels in batches]).tolist() == y.tolist()
    loader = DataLoader(patches, 2, num_workers=1, multiprocessing_context="fork", collate_fn=lambda _: patches._opened[0])
    assert all(opened_by not in (None, os.getpid()) for opened_by in loader)


def test_digest(tmp_path):
    write(tmp_path)
    before = load_pcam(tmp_path).sha256()
    assert load_pcam(tmp_path).sha256() == before
    save(path(tmp_path, "test", "y"), "y", np.ones((2, 1, 1, 1), np.uint8))
    assert load_pcam(tmp_path).sha256() != before


@pytest.mark.parametrize("split, part, array, message", [
    ("train", "x", None, "no camelyonpatch_level_2_split_train_x.h5 in"),
    ("valid", "y", None, "split_valid_y.h5: no such file"),
    ("valid", "x", b"not HDF5", "split_valid_x.h5: not an HDF5 file with the dataset 'x'"),
    ("test", "x", np.zeros((2, 96, 96, 1), np.uint8), "test_x.h5: expected x to be uint8 [N, 96, 96, 3], got uint8 [2"),
    ("test", "x", np.zeros((2, 96, 96, 3), np.float32), "expected x to be uint8 [N, 96, 96, 3], got float32"),
    ("test", "y", np.zeros((3, 1, 1, 1), np.uint8), "test_y.h5: 3 labels for the 2 patches of camelyonpatch"),
    ("test", "y", np.full((2, 1, 1, 1), 2, np.uint8), "test_y.h5: the labels must be 0 and 1, got 2 to 2"),
])  # fmt: skip
def test_bad_files(tmp_path, split, part, array, message):
    write(tmp_path)
    file = path(tmp_path, split, part)
    if array is None:
        file.unlink()
    elif isinstance(array, bytes):
        file.write_bytes(array)
    else:
        save(file, part, array)
    with pytest.raises(InputError) as error:
        load_pcam(tmp_path)
    assert message in str(error.value)


def test_a_file_with_another_dataset(tmp_path):
    write(tmp_path)
    save(path(tmp_path, "train", "y"), "x", np.zeros(6, np.uint8))
    with pytest.raises(InputError, match="train_y.h5: not an HDF5 file with the dataset 'y'"):
        load_pcam(tmp_path)


def test_without_h5py(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"PatchCamelyon needs the data extra .*pip install 'gconv_ext\[data\]'"):
        load_pcam(tmp_path)
