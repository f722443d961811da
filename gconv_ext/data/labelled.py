"""Labelled images in three splits: in memory, or left in their files."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError

SPLITS = ("train", "validation", "test")


class LabelledImages(NamedTuple):
    """Images [N, H, W] or [N, C, H, W] and labels [N], both uint8, by split: {"train": (images, labels), ...}; and
    their origin."""

    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    origin: str

    def count(self, split: str) -> int:
        """How many images a split has."""
        return len(self.splits[split][1])

    def sha256(self) -> str:
        """Names the exact data, for results files."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for array in self.splits[split]:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class ImageFiles(NamedTuple):
    """Datasets by split, {"train": dataset, ...}, that read an image, uint8 [3, H, W], when it is asked for, and give
    it with its label, an int; their origin; and a digest of the files' names, sizes and labels."""

    splits: Mapping[str, Dataset[tuple[Tensor, int]]]
    origin: str
    digest: str

    def count(self, split: str) -> int:
        """How many images a split has."""
        return len(self.splits[split])  # type: ignore[arg-type]  # torch leaves len() out of Dataset

    def sha256(self) -> str:
        """Tells this data from other data, for results files."""
        return self.digest


class Pictures(Dataset[tuple[Tensor, int]]):
    """Picture files of any size and format that Pillow reads, cut to a square in the middle and scaled bilinearly.

    Args:
        files: one a picture.
        labels: one for each.
        size: height = width of the result.

    Item i: (uint8 tensor [3, size, size], label).  A file that is no picture raises InputError there.
    """

    def __init__(self, files: Sequence[Path], labels: Sequence[int], size: int):
        import_extra("PIL", "reading pictures")
        self.files, self.labels, self.size = list(files), list(labels), size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image, ImageOps

        try:
            with Image.open(self.files[i]) as image:
                square = ImageOps.fit(image.convert("RGB"), (self.size, self.size), Image.Resampling.BILINEAR)
        except (OSError, SyntaxError) as error:  # Pillow's errors for broken files
            raise InputError(f"{self.files[i]}: not a picture that Pillow reads ({error})") from error
        return torch.from_numpy(np.array(square)).permute(2, 0, 1), self.labels[i]


def digest_of_files(files: Iterable[tuple[Path, object]], root: Path) -> str:
    """A digest of the files' names below `root`, their sizes, and what else tells them apart (a label)."""
    digest = hashlib.sha256()
    for path, detail in files:
        digest.update(f"{path.relative_to(root)} {path.stat().st_size} {detail}\n".encode())
    return digest.hexdigest()


def import_extra(module: str, purpose: str) -> ModuleType:
    """A module of the extra "data".

    Raises:
        InputError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{purpose} needs the data extra ({error}): pip install 'gconv_ext[data]'") from error


def existing(path: Path) -> Path:
    """`path`, which must be a file.

    Raises:
        InputError: it is not.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def folder_with(name: str, folders: Iterable[Path]) -> Path:
    """The first of the folders that holds `name`.

    Raises:
        InputError: none does.
    """
    folders = list(folders)
    found = next((folder for folder in folders if (folder / name).exists()), None)
    if found is None:
        raise InputError(f"no {name} in {' or '.join(map(str, folders))}")
    return found
