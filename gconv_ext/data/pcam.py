"""PatchCamelyon (Veeling et al. 2018): patches of tissue in six HDF5 files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError
from .labelled import SPLITS, ImageFiles, digest_of_files, existing, folder_with, import_extra

_T = TypeVar("_T")
_NAME = "camelyonpatch_level_2_split_{}_{}.h5"


def load_pcam(data_dir: Path | str) -> ImageFiles:
    """Opens PatchCamelyon: 262,144, 32,768 and 32,768 patches of 96 x 96 pixels, label 1 with a tumour in the middle.

    Args:
        data_dir: a folder with camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5, unpacked, or torchvision's root
            of them.

    Raises:
        InputError: a missing, broken or mismatched file; no h5py.
        OSError: a file cannot be opened.
    """
    root = Path(data_dir)
    folder = folder_with(_NAME.format("train", "x"), (root, root / "pcam"))
    splits: dict[str, Patches] = {}
    files: list[tuple[Path, object]] = []
    for split in SPLITS:
        name = "valid" if split == "validation" else split
        patches, labels = (existing(folder / _NAME.format(name, part)) for part in "xy")
        splits[split] = Patches(patches, labels)
        files += [(patches, ""), (labels, splits[split].labels)]
    return ImageFiles(splits, "PatchCamelyon from HDF5 files", digest_of_files(files, folder))


class Patches(Dataset[tuple[Tensor, int]]):
    """One split: "x", uint8 [N, 96, 96, 3], in one file, and "y", [N, 1, 1, 1], in another.

    Item i: (uint8 tensor [3, 96, 96], label).
    """

    def __init__(self, patches: Path, labels: Path):
        self.path = patches
        shape, dtype = _dataset(patches, "x", lambda x: (x.shape, x.dtype))
        self.labels = _dataset(labels, "y", lambda y: np.asarray(y)).reshape(-1).tolist()
        if len(shape) != 4 or shape[1:] != (96, 96, 3) or dtype != np.uint8:
            raise InputError(f"{patches}: expected x to be uint8 [N, 96, 96, 3], got {dtype} {list(shape)}")
        if len(self.labels) != shape[0]:
            raise InputError(f"{labels}: {len(self.labels)} labels for the {shape[0]} patches of {patches.name}")
        if not set(self.labels) <= {0, 1}:
            raise InputError(f"{labels}: the labels must be 0 and 1, got {min(self.labels)} to {max(self.labels)}")
        self._opened: tuple[int | None, Any] = (None, None)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        process, file = self._opened
        if process != os.getpid():  # a handle must not be shared with a worker
            file = import_extra("h5py", "PatchCamelyon").File(self.path)
            self._opened = os.getpid(), file
        return torch.from_numpy(file["x"][i]).permute(2, 0, 1), self.labels[i]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": (None, None)}


def _dataset(path: Path, name: str, take: Callable[[Any], _T]) -> _T:
    h5py = import_extra("h5py", "PatchCamelyon")
    try:
        with h5py.File(path) as file:
            return take(file[name])
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: not an HDF5 file with the dataset {name!r} ({error})") from error
