"""Paper 3, «Using and Abusing Equivariance»: networks at input sizes that do and do not break their equivariance, by
accuracy on upright and on turned images (its Tables 1 and 2, Fig. 5 and 6) and by the error at every stage (Fig. 4)."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.utils.data import DataLoader, Subset

from ..data import SPLITS, ImageFiles, LabelledImages
from ..exactness import exactness
from ..training import runs
from ..training.classifier import ImageClassifier
from ..training.equivariance_callback import EquivarianceErrorPerStage
from ..training.results import append_row, versions
from .subsampling_config import SubsamplingConfig
from .turned_images import (
    PreparesBatches, TurnedImages, accuracies, prepared, spread, steps_per_second, train, workers,
)  # fmt: skip

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
    rotations = dict.fromkeys(SPLITS, config.rotation) | {"test": "uniform"}
    splits = {split: TurnedImages(config, data, split, rotation) for split, rotation in rotations.items()}
    exact = exactness(config.network(), config.size).exact if config.group else None
    callbacks = [EquivarianceErrorPerStage(_first(config, splits["validation"]), config.group)] if config.group else []
    module = train(
        lambda: _Classifier(config, identity), config, data, splits, out / config.name / "last.ckpt", identity,
        resume=resume, accelerator=accelerator, processes=processes, precision=config.precision, callbacks=callbacks,
    )  # fmt: skip
    algorithms = ["reference", "dense", config.algorithm] if config.group else [config.algorithm]
    row = {
        "experiment": "subsampling",
        "name": config.name,
        "config": identity,
        "data": {"origin": data.origin, **{split: len(splits[split]) for split in SPLITS}},
        "versions": versions(),
        "parameters": runs.count_parameters(module.model),
        "exact": exact,
        "epochs": module.history,
        **_tested(config, module.model, splits["test"], workers(data)),
        "equivariance_errors": callbacks[0].history if callbacks else None,
        "seconds_per_epoch": statistics.median(epoch["train_seconds"] for epoch in module.history),
        "steps_per_second": steps_per_second(config, algorithms, splits["train"], module.trained_on),
    }
    append_row(out / "results.jsonl", row)
    return row


def _first(config: SubsamplingConfig, images: TurnedImages) -> Tensor:
    chosen, _, degrees = next(iter(DataLoader(images, ERROR_IMAGES)))
    return prepared(config, chosen, degrees)


class _Classifier(PreparesBatches, ImageClassifier):
    """Learns by one of the recipes."""

    settings: SubsamplingConfig

    def __init__(self, config: SubsamplingConfig, identity: dict):
        super().__init__(config.network(), config.lr, 0.0, identity)
        self.settings = config

    def configure_optimizers(self):
        options: dict[str, Any] = dict(lr=self.lr, weight_decay=self.settings.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        if self.settings.recipe == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(self.parameters(), momentum=0.9, **options)
        else:
            optimizer = torch.optim.Adam(self.parameters(), **options)
        if self.settings.recipe == "one-cycle":
            schedule: LRScheduler = OneCycleLR(optimizer, self.lr, total_steps=steps)
        else:
            parts, factor = (5, 0.5) if self.settings.recipe == "halving" else (3, 0.1)
            schedule = LambdaLR(optimizer, lambda step: factor ** (parts * step // steps))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def _tested(config: SubsamplingConfig, network: nn.Module, test: TurnedImages, workers: int) -> dict:
    """The accuracies of the row."""
    degrees = [360 * i / config.angles for i in range(config.angles)]
    upright, rotated = accuracies(config, network, DataLoader(test, 500, num_workers=workers), [0.0, None])
    some = Subset(test, spread(config.angle_images, len(test)))
    by_angle = accuracies(config, network, DataLoader(some, 500, num_workers=workers), degrees)
    return {
        "test_accuracy": upright,
        "test_rotated_accuracy": rotated,
        "test_turned_accuracy": statistics.fmean(by_angle[:: config.angles // 4]),
        "test_accuracy_by_angle": {"degrees": degrees, "accuracy": by_angle},
    }


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
