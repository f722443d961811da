"""Labelled digits in three splits: the subset that ships with the package, or whole idx sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from .idx import read_idx
from .labelled import SPLITS, LabelledImages

Digits = LabelledImages  # of images [N, 28, 28]
DATASETS = {"mnist": "MNIST", "fashion": "FashionMNIST"}  # name -> torchvision's class and folder
_SHIPPED = Path(__file__).with_name("digits.npz")


def load_digits(data_dir: Path | str | None = None, dataset: str = "mnist", download: bool = False) -> Digits:
    """Loads digits in three splits.

    Args:
        data_dir: None for the balanced subset of MNIST that ships with the package (5,000 / 1,000 / 2,000).  Else a
            folder with the four idx files, plain or .gz, or torchvision's root of them; the last twelfth of the training
            file becomes the validation split.
        dataset: "mnist" or "fashion"; tells torchvision's folder and what to download.
        download: fetch the files into data_dir with torchvision first.

    Raises:
        InputError: an unknown dataset, a missing, truncated or mismatched file, download without torchvision.
        OSError: a file cannot be opened.
    """
    if dataset not in DATASETS:
        raise InputError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    if data_dir is None:
        if download or dataset != "mnist":
            raise InputError(f"the digits that ship with the package are MNIST; {dataset} and downloads need a data folder")
        with np.load(_SHIPPED) as arrays:
            splits = {split: (arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in SPLITS}
        return Digits(splits, "MNIST, the balanced subset that ships with gconv_ext")
    root = Path(data_dir)
    if download:
        _download(root, dataset)
    folder = _folder_of_idx_files(root, dataset)
    images, labels = _pair(folder, "train")
    last = len(images) - len(images) // 12
    splits = {"train": (images[:last], labels[:last]), "validation": (images[last:], labels[last:]), "test": _pair(folder, "t10k")}
    return Digits(splits, f"{dataset} from idx files")


def _download(root: Path, dataset: str) -> None:
    try:
        import torchvision
    except ImportError as error:
        raise InputError(f"download needs torchvision, which cannot be imported ({error})") from error
    for train in (True, False):
        getattr(torchvision.datasets, DATASETS[dataset])(root, train=train, download=True)


def _idx_file(folder: Path, name: str) -> Path | None:
    candidates = [folder / f"{name}{suffix}" for suffix in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def _folder_of_idx_files(root: Path, dataset: str) -> Path:
    candidates = (root, root / DATASETS[dataset] / "raw")
    for folder in candidates:
        if _idx_file(folder, "train-images-idx3-ubyte"):
            return folder
    raise InputError(
        f"no train-images-idx3-ubyte or train-images-idx3-ubyte.gz in {' or '.join(map(str, candidates))}; --download "
        f"fetches {DATASETS[dataset]}'s four files with torchvision"
    )


def _pair(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    arrays = []
    for name, dimensions in ((f"{prefix}-images-idx3-ubyte", 3), (f"{prefix}-labels-idx1-ubyte", 1)):
        path = _idx_file(folder, name)
        if path is None:
            raise InputError(f"{folder / name}: neither this file nor its .gz is there")
        array = read_idx(path)
        if array.ndim != dimensions or (dimensions == 3 and array.shape[1:] != (28, 28)):
            raise InputError(f"{path}: expected {'[N, 28, 28] images' if dimensions == 3 else '[N] labels'}, got shape {list(array.shape)}")
        arrays.append(array)
    images, labels = arrays
    if len(images) != len(labels):
        raise InputError(f"{folder}: {len(images)} images and {len(labels)} labels in the {prefix} files")
    if len(labels) == 0 or labels.max() > 9:
        raise InputError(f"{folder}: the {prefix} labels must be 0 to 9, got {'none' if len(labels) == 0 else labels.max()}")
    return images, labels
