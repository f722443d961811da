"""The image sets of the papers by name: what they hold, and how to load them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .cifar import load_cifar
from .digits import load_digits
from .flowers import load_flowers102
from .image_folder import load_image_folder
from .labelled import ImageFiles, LabelledImages
from .pcam import load_pcam


class ImageSet(NamedTuple):
    """What a set holds.

    Attributes:
        channels, classes: how many.
        mean, std: of the values in [0, 1] by channel, to normalise with; 0 and 1 for digits, which stay as they are.
        download: whether torchvision can fetch it for us.
        sizes: whether its pictures come in all sizes, and are scaled when they are read.
    """

    channels: int
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    load: Callable[..., LabelledImages | ImageFiles]
    download: bool = False
    sizes: bool = False


_NATURAL = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as everyone has them

IMAGE_SETS = {
    "mnist": ImageSet(1, 10, (0.0,), (1.0,), load_digits, download=True),
    "fashion": ImageSet(1, 10, (0.0,), (1.0,), load_digits, download=True),
    "cifar10": ImageSet(3, 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), load_cifar, download=True),
    "cifar100": ImageSet(3, 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), load_cifar, download=True),
    "pcam": ImageSet(3, 2, *_NATURAL, load_pcam),
    "flowers102": ImageSet(3, 102, *_NATURAL, load_flowers102, sizes=True),
    "imagenet": ImageSet(3, 1000, *_NATURAL, load_image_folder, sizes=True),
}


def load_images(
    dataset: str, data_dir: Path | str | None = None, *, size: int = 224, download: bool = False
) -> LabelledImages | ImageFiles:
    """Loads one of IMAGE_SETS in three splits.

    Args:
        dataset: its name.
        data_dir: folder with its files, as its loader describes it; None for the digits that ship with the package.
        size: of pictures that come in all sizes, in pixels.
        download: fetch the files into data_dir with torchvision first.

    Raises:
        InputError: an unknown set, a set that torchvision does not fetch for us, no folder, and whatever the loader
            refuses.
        OSError: a file cannot be opened.
    """
    if dataset not in IMAGE_SETS:
        raise InputError(f"dataset must be one of {', '.join(IMAGE_SETS)}, got {dataset!r}")
    found = IMAGE_SETS[dataset]
    if download and not found.download:
        raise InputError(f"{dataset} cannot be downloaded from here: give the folder of its files")
    if data_dir is None and found.load is not load_digits:
        raise InputError(f"{dataset} does not ship with the package: give the folder of its files")
    if found.download:
        return found.load(data_dir, dataset, download)
    return found.load(data_dir, size) if found.sizes else found.load(data_dir)
