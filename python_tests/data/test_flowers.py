import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from gconv_ext.data import load_flowers102
from gconv_ext.errors import InputError

LABELS = [5, 102, 1, 77, 5]
IDS = {"trnid": [2, 5], "valid": [1], "tstid": [3, 4]}


def write(folder, labels=LABELS, ids=IDS):
    """Five pictures, picture i (from 1) grey of value 40 i, in the format of the three downloads."""
    (folder / "jpg").mkdir(parents=True, exist_ok=True)
    for i in range(1, 6):
        Image.new("RGB", (30 + i, 24), (40 * i,) * 3).save(folder / "jpg" / f"image_{i:05d}.jpg", quality=95)
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    savemat(folder / "setid.mat", {key: np.array([value], np.uint16) for key, value in ids.items()})


@pytest.mark.parametrize("folder", [".", "flowers-102"])
def test_splits(tmp_path, folder):
    write(tmp_path / folder)
    sets = load_flowers102(tmp_path, size=16)
    for split, ids in zip(("train", "validation", "test"), IDS.values()):
        found = sets.splits[split]
        assert [found[i][1] for i in range(len(found))] == [LABELS[n - 1] - 1 for n in ids]
        for i, n in enumerate(ids):
            image = found[i][0]
            assert image.shape == (3, 16, 16) and image.dtype == torch.uint8
            assert (image.int() - 40 * n).abs().max() <= 2


@pytest.mark.parametrize("change, message", [
    (dict(labels=[5, 103, 1, 77, 5]), "imagelabels.mat: the labels must be 1 to 102, got 1 to 103"),
    (dict(labels=[5, 0, 1, 77, 5]), "imagelabels.mat: the labels must be 1 to 102, got 0 to 77"),
    (dict(ids=IDS | {"valid": [6]}), "setid.mat: valid must be 1 to 5, got 6 to 6"),
    (dict(ids={"trnid": [1], "valid": [2]}), "setid.mat: not a MATLAB file with 'tstid'"),
    (dict(ids=IDS | {"tstid": []}), "setid.mat: tstid is empty"),
])  # fmt: skip
def test_bad_matrices(tmp_path, change, message):
    write(tmp_path, **change)
    with pytest.raises(InputError) as error:
        load_flowers102(tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize("name, content, message", [
    ("setid.mat", None, "no setid.mat in "),
    ("imagelabels.mat", b"MATLAB?" * 40, "imagelabels.mat: not a MATLAB file with 'labels'"),
    ("jpg/image_00003.jpg", None, "image_00003.jpg: no such file"),
])  # fmt: skip
def test_bad_files(tmp_path, name, content, message):
    write(tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load_flowers102(tmp_path)
    assert message in str(error.value)


def test_without_scipy(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(InputError, match=r"Flowers-102 needs the data extra .*pip install 'gconv_ext\[data\]'"):
        load_flowers102(tmp_path)
