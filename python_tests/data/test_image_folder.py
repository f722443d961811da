import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gconv_ext.data import load_image_folder
from gconv_ext.errors import InputError

SPLITS = ("train", "validation", "test")


def picture(path, grey=0, size=(20, 12), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, grey if mode == "L" else (grey,) * len(mode)).save(path)


def greys(dataset):
    return [(dataset[i][0][0, 0, 0].item(), dataset[i][1]) for i in range(len(dataset))]


def test_named_splits(tmp_path):
    for split, grey in (("train", 1), ("val", 2), ("test", 3)):
        for name in ("cat", "ant"):
            picture(tmp_path / split / name / "deeper" / "1.PNG", grey + 10 * (name == "cat"))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not a picture")
    (tmp_path / "train" / ".hidden").mkdir()
    sets = load_image_folder(tmp_path, size=8)
    assert [greys(sets.splits[split]) for split in SPLITS] == [[(n, 0), (10 + n, 1)] for n in (1, 2, 3)]
    assert sets.origin == "pictures of 2 classes"
    before = sets.sha256()
    picture(tmp_path / "test" / "ant" / "2.png")
    assert load_image_folder(tmp_path).sha256() != before


def test_train_and_val_as_imagenet_has_them(tmp_path):
    for name in ("n01440764", "n01443537"):
        for i in range(20):
            picture(tmp_path / "train" / name / f"{name}_{i:02d}.JPEG", i)
        picture(tmp_path / "val" / name / "ILSVRC2012_val_00000001.JPEG", 50)
    sets = load_image_folder(tmp_path, size=8)
    assert [len(sets.splits[split]) for split in SPLITS] == [38, 2, 2]
    assert greys(sets.splits["validation"]) == [(19, 0), (19, 1)] and greys(sets.splits["test"]) == [(50, 0), (50, 1)]


def test_classes_alone(tmp_path):
    for i in range(10):
        picture(tmp_path / "a" / f"{i}.png", i)
        picture(tmp_path / "b" / f"{i}.png", 10 + i)
    sets = load_image_folder(tmp_path, size=8)
    assert greys(sets.splits["validation"]) == [(8, 0), (18, 1)] and greys(sets.splits["test"]) == [(9, 0), (19, 1)]
    assert sorted(sum((greys(sets.splits[split]) for split in SPLITS), [])) == [(i, i // 10) for i in range(20)]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_the_middle_square_in_rgb(tmp_path, mode):
    """24 x 12 pixels, the outer quarters black, the middle grey rising from top to bottom."""
    columns = np.repeat([0, 1, 1, 0], 6)
    image = Image.fromarray((np.arange(12)[:, None] * 20 * columns).astype(np.uint8)).convert(mode)
    for name in ("a", "b"):
        for i in range(10):
            (tmp_path / name).mkdir(exist_ok=True)
            image.save(tmp_path / name / f"{i}.png")
    for size in (12, 6):
        found = load_image_folder(tmp_path, size).splits["train"][0][0]
        expected = 20 * torch.arange(12.0).view(size, -1, 1).mean(1)
        assert found.shape == (3, size, size)
        assert (found - expected)[:, 1:-1, 1:-1].abs().max() <= 1  # the filter reaches beyond the edges


def test_a_broken_picture_is_named(tmp_path):
    for name in ("a", "b"):
        for i in range(10):
            picture(tmp_path / name / f"{i}.png")
    (tmp_path / "a" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"a.0.png: not a picture that Pillow reads"):
        load_image_folder(tmp_path).splits["train"][0]


@pytest.mark.parametrize("files, message", [
    (None, "missing: no such folder"),
    (["train/a/1.png", "train/b/1.png"], "there is train, and neither validation nor val"),
    (["train/a/1.png", "train/b/1.txt", "val/a/1.png", "val/b/1.png"], "b: no pictures here (.bmp"),
    (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"], "c: this class is not among those to train on"),
    (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png"], "too few pictures for the validation split, 4"),
    (["a/1.png"], "expected a folder for each of at least two classes, got 1 folders"),
])  # fmt: skip
def test_bad_folders(tmp_path, files, message):
    for name in files or ():
        picture(tmp_path / name) if name.endswith("png") else (tmp_path / name).parent.mkdir(parents=True)
    with pytest.raises(InputError) as error:
        load_image_folder(tmp_path if files else tmp_path / "missing")
    assert message in str(error.value)


def test_without_pillow(tmp_path, monkeypatch):
    for name in ("a", "b"):
        for i in range(10):
            picture(tmp_path / name / f"{i}.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"reading pictures needs the data extra .*pip install 'gconv_ext\[data\]'"):
        load_image_folder(tmp_path)
