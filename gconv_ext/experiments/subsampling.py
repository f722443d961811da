"""Paper 3, «Using and Abusing Equivariance»: networks at input sizes that do and do not break their equivariance, by
accuracy on upright and on turned images (its Tables 1 and 2, Fig. 5 and 6) and by the error at every stage (Fig. 4)."""

from __future__ import annotations

import os
import statistics
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from ..data import IMAGE_SETS, SPLITS, CircleCrop, ImageFiles, LabelledImages, biased_angles, rotate, uniform_angles
from ..errors import InputError
from ..exactness import exactness
from ..training import runs
from ..training.classifier import ImageClassifier
from ..training.equivariance_callback import EquivarianceErrorPerStage
from ..training.fit import SplitData
from ..training.results import append_row, versions
from .subsampling_config import SubsamplingConfig

ERROR_IMAGES = 32  # of the validation split, for the error at every stage


def run(
    config: SubsamplingConfig, data: LabelledImages | ImageFiles, out: Path, *, resume: bool = False,
    accelerator: str = "auto", processes: int = 1,
) -> dict:  # fmt: skip
    """Trains and tests one network, and appends its row to out/results.jsonl.

    Args:
        config: what to train.
        data: config.dataset, from data.load_images.
        out: folder of results; the run's checkpoint goes to out/<config.name>/last.ckpt.
        resume: go on from that checkpoint, or return the row of a finished run.
        accelerator, processes: see training.fit.fit.

    Returns:
        The row: config, data, versions, whether the network is exact at this size, epochs (one dict each), and

            test_accuracy           of the test split as it is (Table 1, MNIST; Table 2, seen rotations)
            test_rotated_accuracy   of the test split turned by angles uniform on the circle (Table 1, RotMNIST)
            test_accuracy_by_angle  of the test split turned by one angle, for each of `angles` (Fig. 5 and 6)
            test_turned_accuracy    mean of that over the four quarter turns (Table 2, unseen rotations)
            equivariance_errors     Eq. 14 by stage before the training and after every epoch (Fig. 4); None without a
                                    group

    Raises:
        InputError: the run's folder is there already and `resume` is not given, or it is of another configuration; the
            data are not config.dataset or too few for a batch; the batch is not a multiple of `processes`.
        OSError: `out` cannot be written.
        KeyboardInterrupt: after Ctrl-C; call again with resume=True.
    """
    identity = asdict(config) | {"data": data.sha256()}
    if resume and (row := runs.finished_row(out / "results.jsonl", config.name, identity)):
        return row
    splits = {split: _Turned(config, data, split) for split in SPLITS}
    workers = 0 if isinstance(data, LabelledImages) else min(8, os.cpu_count())
    exact = exactness(config.network(), config.size).exact if config.group else None
    callbacks = [EquivarianceErrorPerStage(_first(config, splits["validation"]), config.group)] if config.group else []
    module = runs.train(
        lambda: _Classifier(config, identity),
        lambda: SplitData(splits["train"], splits["validation"], config.batch_size, config.seed, workers),
        out / config.name / "last.ckpt", identity, seed=config.seed, epochs=config.epochs, resume=resume,
        accelerator=accelerator, processes=processes, precision=config.precision, callbacks=callbacks,
    )  # fmt: skip

    network = module.model.eval().to(module.trained_on)
    pixels, labels, degrees = next(iter(DataLoader(splits["train"], config.batch_size)))
    algorithms = ["reference", "dense", config.algorithm] if config.group else [config.algorithm]
    seconds = runs.step_seconds(
        config.network, algorithms, _prepared(config, pixels, degrees), labels, module.trained_on, steps=3
    )
    row = {
        "experiment": "subsampling",
        "name": config.name,
        "config": identity,
        "data": {"origin": data.origin, **{split: len(splits[split]) for split in SPLITS}},
        "versions": versions(),
        "parameters": runs.count_parameters(network),
        "exact": exact,
        "epochs": module.history,
        **_tested(config, network, splits["test"], workers),
        "equivariance_errors": callbacks[0].history if callbacks else None,
        "seconds_per_epoch": statistics.median(epoch["train_seconds"] for epoch in module.history),
        "steps_per_second": {name: 1 / statistics.median(times) for name, times in seconds.items()},
    }
    append_row(out / "results.jsonl", row)
    return row


class _Turned(Dataset):
    """The images of a split that a run uses, their labels, and the angles to turn them by, in degrees."""

    def __init__(self, config: SubsamplingConfig, data: LabelledImages | ImageFiles, split: str):
        images = data.splits[split]
        if not isinstance(images, Dataset):
            pixels, labels = map(torch.tensor, images)
            images = TensorDataset(pixels if pixels.dim() == 4 else pixels.unsqueeze(1), labels.long())
        channels, found = IMAGE_SETS[config.dataset].channels, images[0][0].shape[0]
        if found != channels:
            raise InputError(f"the data must be {config.dataset}, with {channels} channels, got images with {found}")
        self.images, self.chosen = images, _spread(getattr(config, f"{split}_images"), len(images))
        count = len(self.chosen)
        generator = torch.Generator().manual_seed(config.seed * 3 + SPLITS.index(split))
        rotation = "uniform" if split == "test" else config.rotation
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


def _prepared(config: SubsamplingConfig, images: Tensor, degrees: Tensor | float) -> Tensor:
    """What the network gets of uint8 images [N, C, H, W]: scaled, turned, the corners hidden, normalised."""
    x = images.float() / 255
    if x.shape[-2:] != (config.size, config.size):
        x = F.interpolate(x, (config.size, config.size), mode="bilinear", antialias=True)
    if torch.as_tensor(degrees).any():  # else not even to rounding
        x = rotate(x, degrees)
    if config.circle_crop:
        x = CircleCrop()(x)
    images = IMAGE_SETS[config.dataset]
    return (x - x.new_tensor(images.mean).view(-1, 1, 1)) / x.new_tensor(images.std).view(-1, 1, 1)


def _augmented(config: SubsamplingConfig, x: Tensor) -> Tensor:
    """A window of each padded image, at random, and half of them mirrored."""
    count, size, device = len(x), config.size, x.device
    corners = torch.randint(2 * config.crop_padding + 1, (2, count, 1), device=device)
    rows, columns = corners + torch.arange(size, device=device)
    if config.flip:
        columns = torch.where(torch.rand(count, 1, device=device) < 0.5, columns.flip(1), columns)
    padded = F.pad(x, [config.crop_padding] * 4).permute(0, 2, 3, 1)
    image = torch.arange(count, device=device).view(-1, 1, 1)
    return padded[image, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


def _first(config: SubsamplingConfig, images: _Turned) -> Tensor:
    chosen, _, degrees = next(iter(DataLoader(images, ERROR_IMAGES)))
    return _prepared(config, chosen, degrees)


class _Classifier(ImageClassifier):
    """ImageClassifier that prepares its batches itself, and learns by one of the recipes."""

    def __init__(self, config: SubsamplingConfig, identity: dict):
        super().__init__(config.network(), config.lr, 0.0, identity)
        self.settings = config

    def on_after_batch_transfer(self, batch: tuple[Tensor, ...], _: int) -> tuple[Tensor, Tensor]:
        images, labels, degrees = batch
        x = _prepared(self.settings, images, degrees)
        if self.trainer.training:
            # Augmentation and dropout of a step are then the same in a resumed run.
            torch.manual_seed((self.settings.seed * 1_000_000 + self.global_step) * 1_000 + self.global_rank)
            if self.settings.crop_padding or self.settings.flip:
                x = _augmented(self.settings, x)
        return x, labels

    def configure_optimizers(self):
        options = dict(lr=self.lr, weight_decay=self.settings.weight_decay)
        steps = self.trainer.estimated_stepping_batches
        if self.settings.recipe == "sgd":
            optimizer = torch.optim.SGD(self.parameters(), momentum=0.9, **options)
        else:
            optimizer = torch.optim.Adam(self.parameters(), **options)
        if self.settings.recipe == "one-cycle":
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps)
        else:
            parts, factor = (5, 0.5) if self.settings.recipe == "halving" else (3, 0.1)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor ** (parts * step // steps))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def _tested(config: SubsamplingConfig, network: nn.Module, test: _Turned, workers: int) -> dict:
    """The accuracies of the row."""
    degrees = [360 * i / config.angles for i in range(config.angles)]
    upright, rotated = _accuracies(config, network, DataLoader(test, 500, num_workers=workers), [0.0, None])
    some = Subset(test, _spread(config.angle_images, len(test)))
    by_angle = _accuracies(config, network, DataLoader(some, 500, num_workers=workers), degrees)
    return {
        "test_accuracy": upright,
        "test_rotated_accuracy": rotated,
        "test_turned_accuracy": statistics.fmean(by_angle[:: config.angles // 4]),
        "test_accuracy_by_angle": {"degrees": degrees, "accuracy": by_angle},
    }


@torch.no_grad()
def _accuracies(
    config: SubsamplingConfig, network: nn.Module, batches: DataLoader, angles: list[float | None]
) -> list[float]:
    """Accuracy for each of the angles; None stands for the angles that the images come with."""
    device = next(network.parameters()).device
    right, count = [0] * len(angles), 0
    for images, labels, own in batches:
        images, labels, count = images.to(device), labels.to(device), count + len(labels)
        for i, angle in enumerate(angles):
            logits = network(_prepared(config, images, own if angle is None else angle))
            right[i] += (logits.argmax(1) == labels).sum().item()
    return [total / count for total in right]


def _spread(most: int | None, of: int) -> list[int]:
    """Indices of `most` images, evenly spread, since files are often sorted by class; or of all."""
    count = min(most or of, of)
    return [i * of // count for i in range(count)]


def table(rows: list[dict]) -> str:
    """Markdown table of finished runs, in the order of the paper's Table 1 with our measurements added."""
    lines = [
        "| dataset | training set | network | size | exact | seed | parameters | upright % | rotated % "
        "| quarter turns % | s / epoch |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        config = row["config"]
        normal = f"N(45°, {config['sigma']:g}°)"
        turned = {"none": "upright", "uniform": "uniform", "normal": normal}[config["rotation"]]
        exact = {None: "–", True: "yes", False: "no"}[row["exact"]]
        lines.append(
            f"| {config['dataset']} | {turned} | {config['model']} | {config['size']} | {exact} | {config['seed']} "
            f"| {row['parameters']:,} | {100 * row['test_accuracy']:.2f} | {100 * row['test_rotated_accuracy']:.2f} "
            f"| {100 * row['test_turned_accuracy']:.2f} | {row['seconds_per_epoch']:.1f} |"
        )
    return "\n".join(lines)
