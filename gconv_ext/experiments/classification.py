"""The classification tables of papers 2 and 4: strict, partial and soft networks with continuous kernels on digits and
natural images (paper 2, Tables 1 and 3; paper 4, Tables 2 to 5, Fig. 5 and 6)."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn
from torch.utils.data import DataLoader

from ..data import IMAGE_SETS, SPLITS, ImageFiles, LabelledImages
from ..errors import InputError
from ..nn import NonstationaryGroupConv2d, NonstationaryLiftingConv2d
from ..training import runs
from ..training.results import append_row, versions
from .continuous import MODELS, NONSTATIONARY, ContinuousClassifier, make_network, subsets
from .turned_images import PreparesBatches, TurnedImages, accuracies, steps_per_second, train, workers

ARCHITECTURES = ("ckresnet", "cnn13")
GROUPS = {"T2": ("strict", "soft-none", "soft-translation"), "SE2": (*MODELS, *NONSTATIONARY), "E2": tuple(MODELS)}
ROTATIONS = ("none", "uniform")
SIZES = {"mnist": 28, "fashion": 28, "cifar10": 32, "cifar100": 32, "pcam": 96}  # of the images, in pixels


@dataclass(frozen=True)
class ClassificationConfig:
    """One run; the defaults are paper 4's for its residual network.

    Attributes:
        model: "strict", "partial", "t2-ending", "mlp-ending" or "augerino" of paper 4; or of paper 2 strict as "soft-none",
            or "soft-rotation", "soft-translation", "soft-both".
        architecture: "ckresnet", or "cnn13" for "strict", "partial" and "augerino".
        group: "T2" for "strict", "soft-none" and "soft-translation"; "SE2"; "E2" for paper 4's models.
        elements: N, rotations sampled; 1 for "T2".  Paper 4 counts E2's mirrored elements too, 2N.
        dataset: one of data.IMAGE_SETS.
        rotation: "none", or "uniform": every image of every split is turned by an angle drawn once, which makes rotated
            MNIST of MNIST.
        augment: whether training images are padded by 4 pixels and cut at random, and mirrored at random.
        soft_frequency: ω' of the soft layers, at the start where it is learned.
        learn_soft_frequency: whether it is learned, with alpha as the paper's λ.
        width: fields of the lifting layer; None for the network's own.
        epochs, batch_size, lr, warmup: of Adam; the rate falls along a cosine after `warmup` epochs.
        distribution_lr: learning rate of θ and of the mirrors' logits.
        alpha: factor of Augerino's penalty, or of ‖ω'‖².
        seed: of weights, rotations and order.
        algorithm: see gconv_ext.functional.
        train_images, validation_images, test_images: how many of the split to use at most, evenly spread over it; None for
            all.
    """

    model: str
    architecture: str = "ckresnet"
    group: str = "SE2"
    elements: int = 8
    dataset: str = "mnist"
    rotation: str = "none"
    augment: bool = False
    soft_frequency: float = 0.5
    learn_soft_frequency: bool = False
    width: int | None = None
    epochs: int = 300
    batch_size: int = 64
    lr: float = 0.001
    warmup: int = 5
    distribution_lr: float = 1e-4
    alpha: float = 0.01
    seed: int = 0
    algorithm: str = "auto"
    train_images: int | None = None
    validation_images: int | None = None
    test_images: int | None = None

    # What turned_images.ImageSettings asks for besides: pictures as large as they come, and whole.
    sigma = 0.0
    circle_crop = False

    def __post_init__(self):
        for name, allowed in (
            ("model", [*MODELS, *NONSTATIONARY]), ("architecture", ARCHITECTURES), ("group", GROUPS), ("dataset", SIZES),
            ("rotation", ROTATIONS),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.model not in GROUPS[self.group]:
            raise InputError(
                f"model must be one of {', '.join(GROUPS[self.group])} for group {self.group}, got {self.model!r}"
            )
        if self.architecture == "cnn13" and self.model not in ("strict", "partial", "augerino"):
            raise InputError(f"model must be one of strict, partial, augerino for architecture cnn13, got {self.model!r}")
        if self.group == "T2" and self.elements != 1:
            raise InputError(f"elements must be 1 for group T2, got {self.elements}")
        for name in (
            "elements", "width", "epochs", "batch_size", "lr", "distribution_lr", "train_images", "validation_images",
            "test_images",
        ):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("alpha", "warmup", "seed", "soft_frequency"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def name(self) -> str:
        """Names the run's folder."""
        soft = self.model in NONSTATIONARY and self.model != "soft-none"
        parts = [self.architecture, self.dataset, f"{self.group}-{self.elements}", self.model]
        parts += [f"learned{self.alpha:g}" if self.learn_soft_frequency else f"{self.soft_frequency:g}"] if soft else []
        parts += ["rotated"] if self.rotation == "uniform" else []
        parts += ["augmented"] if self.augment else []
        return "-".join([*parts, f"seed{self.seed}"])

    @property
    def size(self) -> int:
        return SIZES[self.dataset]

    @property
    def crop_padding(self) -> int:
        return 4 if self.augment else 0

    @property
    def flip(self) -> bool:
        return self.augment

    def network(self, algorithm: str | None = None) -> nn.Module:
        images = IMAGE_SETS[self.dataset]
        options = dict(in_channels=images.channels, num_classes=images.classes, algorithm=algorithm or self.algorithm)
        if self.width is not None:
            options["width"] = self.width
        soft = dict(soft_frequency=self.soft_frequency, learn_soft_frequency=self.learn_soft_frequency)
        return make_network(self.architecture, self.model, self.group, self.elements, soft_options=soft, **options)


class _Classifier(PreparesBatches, ContinuousClassifier):
    pass


def run(
    config: ClassificationConfig, data: LabelledImages | ImageFiles, out: Path, *, resume: bool = False,
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
        The row: config, data, versions, epochs (one dict each), test accuracy, what each layer learned.

    Raises:
        InputError: the run's folder is there already and `resume` is not given, or it is of another configuration; the
            data are not config.dataset or too few for a batch; the batch is not a multiple of `processes`.
        OSError: `out` cannot be written.
        KeyboardInterrupt: after Ctrl-C; call again with resume=True.
    """
    identity = asdict(config) | {"data": data.sha256()}
    if resume and (row := runs.finished_row(out / "results.jsonl", config.name, identity)):
        return row
    splits = {split: TurnedImages(config, data, split, config.rotation) for split in SPLITS}
    module = train(
        lambda: _Classifier(config, identity), config, data, splits, out / config.name / "last.ckpt", identity,
        resume=resume, accelerator=accelerator, processes=processes,
    )  # fmt: skip
    network, test = module.model, DataLoader(splits["test"], 500, num_workers=workers(data))
    dense = [] if config.model in ("soft-translation", "soft-both") else ["dense"]  # no one filter for all pixels
    algorithms = dict.fromkeys(["reference", *dense, config.algorithm])
    row = {
        "experiment": "classification",
        "name": config.name,
        "config": identity,
        "data": {"origin": data.origin, **{split: len(splits[split]) for split in SPLITS}},
        "versions": versions(),
        "parameters": runs.count_parameters(network),
        "epochs": module.history,
        "test_accuracy": accuracies(config, network, test, [None])[0],
        "subsets": subsets(network),
        "soft_frequencies": _soft_frequencies(network),
        "seconds_per_epoch": statistics.median(epoch["train_seconds"] for epoch in module.history),
        "steps_per_second": steps_per_second(config, algorithms, splits["train"], module.trained_on),
    }
    append_row(out / "results.jsonl", row)
    return row


def _soft_frequencies(network: nn.Module) -> list[dict]:
    """ω' of every non-stationary layer, by coordinate: row, column, angle."""
    return [
        {"layer": name, "frequency": module.kernel.absolute.frequency.tolist()}
        for name, module in network.named_modules()
        if isinstance(module, (NonstationaryLiftingConv2d, NonstationaryGroupConv2d))
    ]
