import builtins
import io
import json
import pickle
import struct
import sys
import types

import numpy as np
import pytest
from PIL import Image

from gconv_ext.data import load_cifar
from gconv_ext.errors import InputError

RNG = np.random.default_rng(0)
CIFAR10 = [(f"data_batch_{n}", 4) for n in range(1, 6)] + [("test_batch", 6)]
CIFAR100 = [("train", 20), ("test", 6)]


def some(count, classes):
    return RNG.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8), RNG.integers(0, classes, count)


class Python2Pickler(pickle._Pickler):
    """Writes the opcodes of Python 2's cPickle, protocol 2, for str, as the site's files have them."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_str(self, obj):
        data = obj if isinstance(obj, bytes) else obj.encode()
        self.write(b"T" + struct.pack("<I", len(data)) + data)
        self.memoize(obj)

    dispatch[str] = dispatch[bytes] = save_str


def python2(batch):
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(batch)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write(folder, kind, dataset="cifar10"):
    """A small set in the format of the real files; (images, labels) of the training files and of the test file."""
    folder.mkdir(parents=True, exist_ok=True)
    written, listed = [], {"train": [], "test": []}
    for name, count in CIFAR10 if dataset == "cifar10" else CIFAR100:
        images, labels = some(count, 10 if dataset == "cifar10" else 100)
        rows = images.reshape(count, -1)
        if kind == "python":
            key = "labels" if dataset == "cifar10" else "fine_labels"
            more = {} if dataset == "cifar10" else {"coarse_labels": [0] * count}
            (folder / name).write_bytes(python2({"data": rows, key: labels.tolist(), "batch_label": name, **more}))
        elif kind == "binary":
            coarse = [] if dataset == "cifar10" else [np.zeros((count, 1), np.uint8)]
            records = np.hstack([*coarse, labels.astype(np.uint8)[:, None], rows])
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            Image.fromarray(images.transpose(0, 2, 3, 1).reshape(count, 1024, 3)).save(folder / f"{name}.png")
            listed["test" if name == "test_batch" else "train"] += labels.tolist()
        written.append((images, labels))
    if kind == "PNG":
        for split, labels in listed.items():
            (folder / f"{split}_lables.json").write_text(json.dumps(labels))
    return [np.concatenate(arrays) for arrays in zip(*written[:-1])], written[-1]


@pytest.mark.parametrize("dataset, kind, folder", [
    ("cifar10", "python", "cifar-10-batches-py"), ("cifar10", "binary", "cifar-10-batches-bin"),
    ("cifar10", "PNG", "package"), ("cifar10", "PNG", "."), ("cifar100", "python", "cifar-100-python"),
    ("cifar100", "binary", "cifar-100-binary"), ("cifar100", "binary", "."),
])  # fmt: skip
def test_every_layout(tmp_path, dataset, kind, folder):
    train, test = write(tmp_path / folder, kind, dataset)
    found = load_cifar(tmp_path, dataset)
    assert found.origin == f"{dataset} from {kind} files"
    assert [found.splits[split][0].shape for split in ("train", "validation", "test")] == [
        (18, 3, 32, 32), (2, 3, 32, 32), (6, 3, 32, 32)
    ]  # fmt: skip
    for part in (0, 1):
        both = np.concatenate([found.splits["train"][part], found.splits["validation"][part]])
        assert both.dtype == np.uint8 and np.array_equal(both, train[part])
        assert np.array_equal(found.splits["test"][part], test[part])
    assert len(found.sha256()) == 64


def test_a_pickle_that_calls_a_function_is_refused(tmp_path):
    write(tmp_path, "python")
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({"data": builtins.print, "labels": [1]}, 2))
    with pytest.raises(InputError, match=r"data_batch_3: not a python file of cifar10 .*refers to __builtin__.print"):
        load_cifar(tmp_path)


def record(label, count=1):
    return (bytes([label]) + bytes(3072)) * count


@pytest.mark.parametrize("kind, name, content, message", [
    ("python", "data_batch_2", None, "data_batch_2: no such file"),
    ("python", "data_batch_2", b"\x80\x02}", "data_batch_2: not a python file of cifar10 (EOFError"),
    ("python", "data_batch_2", python2({"data": some(1, 10)[0]}), "not a python file of cifar10 (KeyError: 'labels')"),
    ("python", "test_batch", python2({"data": np.zeros((2, 3072)), "labels": [1, 2]}), "expected uint8 images"),
    ("binary", "data_batch_2.bin", record(1)[:-1], "holds 3072 bytes, expected a multiple of 3073, cifar10's record"),
    ("binary", "test_batch.bin", b"", "test_batch.bin: 0 images and 0 labels"),
    ("binary", "test_batch.bin", record(10), "test_batch.bin: the labels must be 0 to 9, got 10 to 10"),
    ("PNG", "test_batch.png", b"GIF", "test_batch.png: not a PNG file"),
    ("PNG", "train_lables.json", None, "train_lables.json: no such file"),
    ("PNG", "train_lables.json", b"[1, 2", "train_lables.json: not JSON"),
    ("PNG", "train_lables.json", b"[1, 2]", "data_batch_1.png: 4 images and 2 labels"),
    ("PNG", "test_lables.json", b"[[1, 2]]", "expected uint8 images and integer labels [N], got uint8 images and int"),
])  # fmt: skip
def test_bad_files(tmp_path, kind, name, content, message):
    write(tmp_path, kind)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load_cifar(tmp_path)
    assert message in str(error.value) and str(tmp_path) in str(error.value)


def test_a_png_of_another_shape(tmp_path):
    write(tmp_path, "PNG")
    Image.new("L", (1024, 6)).save(tmp_path / "test_batch.png")
    with pytest.raises(InputError, match=r"expected an RGB image 1024 wide, .*got shape \[6, 1024\]"):
        load_cifar(tmp_path)


def test_no_files_and_no_such_set(tmp_path):
    with pytest.raises(InputError, match="no cifar100 here: none of test, test.bin, in it or in cifar-100-python, "):
        load_cifar(tmp_path, "cifar100")
    with pytest.raises(InputError, match="dataset must be one of cifar10, cifar100, got 'cifar'"):
        load_cifar(tmp_path, "cifar")


@pytest.mark.parametrize("module, kind", [("PIL.Image", "PNG"), ("torchvision", "download")])
def test_missing_extras(tmp_path, monkeypatch, module, kind):
    write(tmp_path, "PNG")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"'gconv_ext\[data\]'|download needs torchvision"):
        load_cifar(tmp_path, download=kind == "download")


def test_download_by_torchvision(tmp_path, monkeypatch):
    class CIFAR10:
        def __init__(self, root, download):
            assert download
            write(root / "cifar-10-batches-py", "python")

    datasets = types.SimpleNamespace(CIFAR10=CIFAR10)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(datasets=datasets))
    assert len(load_cifar(tmp_path, download=True).splits["test"][1]) == 6
