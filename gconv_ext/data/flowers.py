"""Flowers-102 (Nilsback & Zisserman 2008): a folder of pictures and two MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from .labelled import ImageFiles, Pictures, digest_of_files, existing, folder_with, import_extra

_IDS = {"train": "trnid", "validation": "valid", "test": "tstid"}


def load_flowers102(data_dir: Path | str, size: int = 224) -> ImageFiles:
    """Opens Flowers-102: 1,020, 1,020 and 6,149 pictures of 102 kinds.

    Args:
        data_dir: a folder with jpg/image_00001.jpg, …, imagelabels.mat and setid.mat, or torchvision's root of it.
        size: height = width in pixels; see data.Pictures.

    Raises:
        InputError: a missing, broken or mismatched file; no Pillow or SciPy.
        OSError: a file cannot be opened.
    """
    root = Path(data_dir)
    folder = folder_with("setid.mat", (root, root / "flowers-102"))
    labels = _matrix(folder / "imagelabels.mat", "labels")
    if labels.min() < 1 or labels.max() > 102:
        found = f"{labels.min()} to {labels.max()}"
        raise InputError(f"{folder / 'imagelabels.mat'}: the labels must be 1 to 102, got {found}")
    splits: dict[str, Pictures] = {}
    files: list[tuple[Path, int]] = []
    for split, key in _IDS.items():
        ids = _matrix(folder / "setid.mat", key)
        if ids.min() < 1 or ids.max() > len(labels):
            found = f"{ids.min()} to {ids.max()}"
            raise InputError(f"{folder / 'setid.mat'}: {key} must be 1 to {len(labels)}, got {found}")
        pictures = [existing(folder / "jpg" / f"image_{i:05d}.jpg") for i in ids]
        of_split = (labels[ids - 1] - 1).tolist()
        splits[split] = Pictures(pictures, of_split, size)
        files += zip(pictures, of_split)
    return ImageFiles(splits, "Flowers-102 from its pictures", digest_of_files(files, folder))


def _matrix(path: Path, key: str) -> np.ndarray:
    """A row of whole numbers."""
    io = import_extra("scipy.io", "Flowers-102")
    try:
        values = io.loadmat(existing(path))[key].reshape(-1).astype(np.int64)
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise InputError(f"{path}: not a MATLAB file with {key!r} ({error})") from error
    if len(values) == 0:
        raise InputError(f"{path}: {key} is empty")
    return values
