"""Pictures sorted into a folder for each class: ImageNet, and the user's own."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .labelled import ImageFiles, Pictures, digest_of_files

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def load_image_folder(data_dir: Path | str, size: int = 224) -> ImageFiles:
    """Opens a set of pictures whose folders name their classes, in three splits.

    Args:
        data_dir: a folder of one of these layouts, CLASS being a folder of pictures, or of folders of them:
            train/CLASS, validation/CLASS (or val), test/CLASS;
            train/CLASS, val/CLASS, such as ImageNet's: val is the test split, and every 20th training picture becomes
            the validation split;
            CLASS: of ten pictures in a row the ninth goes to validation, the tenth to test.
        size: height = width in pixels; see data.Pictures.

    Returns:
        ImageFiles; label i is the i-th class of the training split by name, and pictures are in the order of theirs.

    Raises:
        InputError: no such folder, no classes, a class without pictures or of the training split missing, no Pillow.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    if (root / "train").is_dir():
        classes = _classes(root / "train")
        train = _pictures(root / "train", classes)
        folders = [root / name for name in ("validation", "val", "test") if (root / name).is_dir()]
        given = {folder.name: _pictures(folder, classes) for folder in folders}
        validation, test = given.get("validation", given.get("val")), given.get("test")
        if validation is None:
            raise InputError(f"{root}: there is train, and neither validation nor val")
        if test is None:
            test, validation = validation, train[19::20]
            train = [entry for i, entry in enumerate(train) if i % 20 != 19]
    else:
        classes = _classes(root)
        entries = _pictures(root, classes)
        train = [entry for i, entry in enumerate(entries) if i % 10 < 8]
        validation, test = entries[8::10], entries[9::10]
    found = {"train": train, "validation": validation, "test": test}
    for split, entries in found.items():
        if not entries:
            raise InputError(f"{root}: too few pictures for the {split} split, {sum(map(len, found.values()))} in all")
    splits = {
        split: Pictures([path for path, _ in entries], [label for _, label in entries], size)
        for split, entries in found.items()
    }
    files = [entry for entries in found.values() for entry in entries]
    return ImageFiles(splits, f"pictures of {len(classes)} classes", digest_of_files(files, root))


def _classes(folder: Path) -> list[str]:
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise InputError(f"{folder}: expected a folder for each of at least two classes, got {len(classes)} folders")
    return classes


def _pictures(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """(picture, label) of every class."""
    if unknown := sorted(set(_classes(folder)) - set(classes)):
        raise InputError(f"{folder / unknown[0]}: this class is not among those to train on")
    entries = []
    for label, name in enumerate(classes):
        pictures = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not pictures:
            raise InputError(f"{folder / name}: no pictures here ({', '.join(SUFFIXES)})")
        entries += [(path, label) for path in pictures]
    return entries
