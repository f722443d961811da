"""Paper 4's toy tasks (its Table 1 and Fig. 4): is a six turned by half a turn, is it mirrored?"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data import SIX_TASKS, Digits, sixes
from ..errors import InputError
from ..nn.augerino import transformed
from ..sampled_groups import Elements
from ..training import runs
from ..training.fit import SplitData
from ..training.results import append_row, versions
from .continuous import MODELS, NONSTATIONARY, ContinuousClassifier, make_network, subsets

GROUPS = ("SE2", "E2", "D1")
CURVE = 36  # angles of Fig. 4


@dataclass(frozen=True)
class SixesConfig:
    """One run.  The paper trains 300 epochs of all of MNIST's sixes, with a tenth of `lr` for the distributions; a run
    of minutes has a few hundred steps, and larger ones for the distributions.

    Attributes:
        task: "180" or "M"; see gconv_ext.data.sixes.
        model: "strict", "partial", "t2-ending", "mlp-ending" or "augerino"; or paper 2's network, strict as "soft-none", or
            "soft-rotation", "soft-translation", "soft-both".
        group: "SE2", "E2" or "D1", the mirror alone.
        elements: N, rotations sampled; 1 for "D1".
        width: fields of the lifting layer; 10 as in the published configuration.
        epochs, batch_size, lr, warmup: of Adam; the rate falls along a cosine after `warmup` epochs.
        distribution_lr: learning rate of θ and of the mirrors' logits.
        alpha: factor of Augerino's penalty.
        seed: of weights and order.
        algorithm: see gconv_ext.functional.
        train_images: the sixes among the first so many digits of the training split; None for all.
        validation_images: of the validation split, at most so many; None for all.
        angle_images: sixes of the test split that Fig. 4's curve turns, at most so many; None for all.
    """

    task: str
    model: str
    group: str
    elements: int = 8
    width: int = 10
    epochs: int = 8
    batch_size: int = 64
    lr: float = 0.001
    warmup: int = 0
    distribution_lr: float = 0.1
    alpha: float = 0.01
    seed: int = 0
    algorithm: str = "auto"
    train_images: int | None = None
    validation_images: int | None = None
    angle_images: int | None = None

    def __post_init__(self):
        for name, allowed in (("task", SIX_TASKS), ("model", [*MODELS, *NONSTATIONARY]), ("group", GROUPS)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.model in NONSTATIONARY and self.group != "SE2":
            raise InputError(f"group must be SE2 for model {self.model}, got {self.group!r}")
        for name in (
            "elements", "width", "epochs", "batch_size", "lr", "distribution_lr", "train_images", "validation_images",
            "angle_images",
        ):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("alpha", "warmup", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def name(self) -> str:
        """Names the run's folder."""
        return f"{self.task}-{self.group}-{self.model}-seed{self.seed}"

    def network(self) -> nn.Module:
        elements = 1 if self.group == "D1" else self.elements
        return make_network(
            "ckresnet", self.model, self.group, elements, in_channels=1, num_classes=2, width=self.width,
            algorithm=self.algorithm,
        )  # fmt: skip


def run(config: SixesConfig, digits: Digits, out: Path, *, resume: bool = False, accelerator: str = "auto") -> dict:
    """Trains and tests one network, and appends its row to out/results.jsonl.

    Args:
        config: what to train.
        digits: from load_digits.
        out: folder of results; the run's checkpoint goes to out/<config.name>/last.ckpt.
        resume: go on from that checkpoint, or return the row of a finished run.
        accelerator: see training.fit.fit.

    Returns:
        The row: config, data, versions, epochs (one dict each), test figures, what each layer learned.

    Raises:
        InputError: the run's folder is there already and `resume` is not given, or it is of another configuration.
        OSError: `out` cannot be written.
        KeyboardInterrupt: after Ctrl-C; call again with resume=True.
    """
    identity = asdict(config) | {"data": digits.sha256()}
    if resume and (row := runs.finished_row(out / "results.jsonl", config.name, identity)):
        return row
    limits = {"train": config.train_images, "validation": config.validation_images, "test": None}
    if config.train_images and config.train_images > digits.count("train"):
        raise InputError(f"train_images must be at most the {digits.count('train')} of the training split, got {config.train_images}")
    splits = {split: sixes(digits, split, config.task, limit) for split, limit in limits.items()}
    module = runs.train(
        lambda: ContinuousClassifier(config, identity),
        lambda: SplitData(splits["train"], splits["validation"], config.batch_size, config.seed),
        out / config.name / "last.ckpt", identity, seed=config.seed, epochs=config.epochs, resume=resume,
        accelerator=accelerator,
    )  # fmt: skip
    model = module.eval().model
    images, labels = splits["test"]
    row = {
        "experiment": "sixes",
        "name": config.name,
        "config": identity,
        "data": {"origin": digits.origin, **{split: len(splits[split][1]) for split in splits}},
        "versions": versions(),
        "parameters": runs.count_parameters(model),
        "epochs": module.history,
        "test_accuracy": runs.accuracy(model, images, labels),
        "subsets": subsets(model),
        "probability_of_six": _curve(model, images[: len(images) // 2][: config.angle_images]) if config.task == "180" else None,
        "seconds_per_epoch": statistics.median(epoch["train_seconds"] for epoch in module.history),
    }
    append_row(out / "results.jsonl", row)
    return row


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(x) for x in images.split(200)])


def _curve(model: nn.Module, upright: Tensor) -> list[float]:
    """Mean probability of label 0, not turned, for sixes turned by i / CURVE turns (paper 4, Fig. 4)."""
    turns = torch.arange(CURVE) / CURVE
    turned = transformed(upright, Elements(turns, CURVE, False, True, turns.new_ones(())))
    return [_logits(model, images).softmax(1)[:, 0].mean().item() for images in turned]


def table(rows: list[dict]) -> str:
    """Markdown table of finished runs, as the paper's Table 1 with what the layers learned."""
    lines = [
        "| task | group | N | network | seed | parameters | test % | θ of the layers | p of the mirrors | s / epoch |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        config, learned = row["config"], row["subsets"]
        extents = ", ".join(f"{layer['extent']:.2f}" for layer in learned) if config["group"] != "D1" else ""
        mirrors = ", ".join(f"{layer['mirror']:.2f}" for layer in learned if layer["mirror"] is not None)
        elements = 1 if config["group"] == "D1" else config["elements"]
        lines.append(
            f"| MNIST6-{config['task']} | {config['group']} | {elements} | {config['model']} | {config['seed']} "
            f"| {row['parameters']:,} | {100 * row['test_accuracy']:.2f} | {extents or '–'} | {mirrors or '–'} "
            f"| {row['seconds_per_epoch']:.1f} |"
        )
    return "\n".join(lines)
