"""The images of an experiment: a part of a set, turned, hidden in a circle, cut and mirrored at random."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ..data import IMAGE_SETS, SPLITS, CircleCrop, ImageFiles, LabelledImages, biased_angles, rotate, uniform_angles
from ..errors import InputError
from ..training import runs
from ..training.classifier import ImageClassifier
from ..training.fit import SplitData


class ImageSettings(Protocol):
    """What this module reads of a configuration; SubsamplingConfig says what they mean."""

    @property
    def dataset(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def sigma(self) -> float: ...

    @property
    def circle_crop(self) -> bool: ...

    @property
    def crop_padding(self) -> int: ...

    @property
    def flip(self) -> bool: ...

    @property
    def train_images(self) -> int | None: ...

    @property
    def validation_images(self) -> int | None: ...

    @property
    def test_images(self) -> int | None: ...

    @property
    def seed(self) -> int: ...


class TurnedImages(Dataset[tuple[Tensor, int | Tensor, Tensor]]):
    """The images of a split that a run uses, their labels, and the angles to turn them by, in degrees; `rotation` is as
    SubsamplingConfig names it."""

    def __init__(self, config: ImageSettings, data: LabelledImages | ImageFiles, split: str, rotation: str):
        given = data.splits[split]
        if isinstance(given, Dataset):
            images: Dataset = given
        else:
            pixels, labels = map(torch.tensor, given)
            images = TensorDataset(pixels if pixels.dim() == 4 else pixels.unsqueeze(1), labels.long())
        channels, found = IMAGE_SETS[config.dataset].channels, images[0][0].shape[0]
        if found != channels:
            raise InputError(f"the data must be {config.dataset}, with {channels} channels, got images with {found}")
        self.images, self.chosen = images, spread(getattr(config, f"{split}_images"), data.count(split))
        count = len(self.chosen)
        generator = torch.Generator().manual_seed(config.seed * 3 + SPLITS.index(split))
        if rotation == "none":
            self.degrees = torch.zeros(count)
        elif rotation == "uniform":
            self.degrees = uniform_angles(count, generator)
        else:
            self.degrees = biased_angles(count, config.sigma, generator)

    def __len__(self) -> int:
        return len(self.degrees)

    def __getitem__(self, i: int) -> tuple[Tensor, int | Tensor, Tensor]:
        image, label = self.images[self.chosen[i]]
        return image, label, self.degrees[i]


def prepared(config: ImageSettings, images: Tensor, degrees: Tensor | float) -> Tensor:
    """What the network gets of uint8 images [N, C, H, W]: scaled, turned, the corners hidden, normalised."""
    x = images.float() / 255
    if x.shape[-2:] != (config.size, config.size):
        x = F.interpolate(x, (config.size, config.size), mode="bilinear", antialias=True)
    if torch.as_tensor(degrees).any():  # else not even to rounding
        x = rotate(x, degrees)
    if config.circle_crop:
        x = CircleCrop()(x)
    known = IMAGE_SETS[config.dataset]
    return (x - x.new_tensor(known.mean).view(-1, 1, 1)) / x.new_tensor(known.std).view(-1, 1, 1)


def augmented(config: ImageSettings, x: Tensor) -> Tensor:
    """A window of each padded image, at random, and half of them mirrored."""
    count, size, device = len(x), config.size, x.device
    corners = torch.randint(2 * config.crop_padding + 1, (2, count, 1), device=device)
    rows, columns = corners + torch.arange(size, device=device)
    if config.flip:
        columns = torch.where(torch.rand(count, 1, device=device) < 0.5, columns.flip(1), columns)
    padded = F.pad(x, [config.crop_padding] * 4).permute(0, 2, 3, 1)
    image = torch.arange(count, device=device).view(-1, 1, 1)
    return padded[image, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


class PreparesBatches(ImageClassifier):
    """Part of an ImageClassifier with `settings`: it prepares the batches of TurnedImages itself, where the network is."""

    settings: ImageSettings

    def on_after_batch_transfer(self, batch: tuple[Tensor, ...], _: int) -> tuple[Tensor, Tensor]:
        images, labels, degrees = batch
        x = prepared(self.settings, images, degrees)
        if self.trainer.training:
            # Augmentation and dropout of a step are then the same in a resumed run.
            torch.manual_seed((self.settings.seed * 1_000_000 + self.global_step) * 1_000 + self.global_rank)
            if self.settings.crop_padding or self.settings.flip:
                x = augmented(self.settings, x)
        return x, labels


def workers(data: LabelledImages | ImageFiles) -> int:
    """How many processes read the images."""
    return 0 if isinstance(data, LabelledImages) else min(8, os.cpu_count() or 1)


def train(
    make_module: Callable[[], ImageClassifier], config, data: LabelledImages | ImageFiles,
    splits: dict[str, TurnedImages], checkpoint: Path, identity: dict, **options,
) -> ImageClassifier:  # fmt: skip
    """runs.train on the splits, with its other options; the network in eval mode, where it was trained."""
    module = runs.train(
        make_module,
        lambda: SplitData(splits["train"], splits["validation"], config.batch_size, config.seed, workers(data)),
        checkpoint, identity, seed=config.seed, epochs=config.epochs, **options,
    )  # fmt: skip
    module.model.eval().to(module.trained_on)
    return module


def steps_per_second(config, algorithms: Iterable[str], train: TurnedImages, device: torch.device) -> dict[str, float]:
    """Training steps on the first batch, by algorithm; see runs.step_seconds."""
    pixels, labels, degrees = next(iter(DataLoader(train, config.batch_size)))
    seconds = runs.step_seconds(
        config.network, algorithms, prepared(config, pixels, degrees), labels, device, steps=3
    )
    return {name: 1 / statistics.median(times) for name, times in seconds.items()}


@torch.no_grad()
def accuracies(
    config: ImageSettings, network: nn.Module, batches: DataLoader, angles: Sequence[float | None]
) -> list[float]:
    """Accuracy for each of the angles; None stands for the angles that the images come with."""
    device = next(network.parameters()).device
    right, count = [0] * len(angles), 0
    for images, labels, own in batches:
        images, labels, count = images.to(device), labels.to(device), count + len(labels)
        for i, angle in enumerate(angles):
            logits = network(prepared(config, images, own if angle is None else angle))
            right[i] += (logits.argmax(1) == labels).sum().item()
    return [total / count for total in right]


def spread(most: int | None, of: int) -> list[int]:
    """Indices of `most` images, evenly spread, since files are often sorted by class; or of all."""
    count = min(most or of, of)
    return [i * of // count for i in range(count)]
