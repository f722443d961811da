"""Which networks paper 3's experiments train, and on what."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..data import IMAGE_SETS
from ..errors import InputError
from ..models import create_model

# Name -> the group that it is built over, None for plain networks.
MODELS = {
    "z2cnn": None, "p4cnn": "C4", "z2_resnet18": None, "p4_resnet18": "C4", "p4m_resnet18": "D4", "z2_resnet44": None,
    "p4_resnet44": "C4", "p4m_resnet44": "D4",
}  # fmt: skip
ROTATIONS = ("none", "uniform", "normal")
RECIPES = ("halving", "one-cycle", "sgd")


@dataclass(frozen=True)
class SubsamplingConfig:
    """One run; the defaults are the paper's for digits and, for what its text leaves out, those of its published run.

    Attributes:
        model: one of MODELS.
        size: height = width of the network's input; images are scaled to it bilinearly.
        dataset: one of data.IMAGE_SETS.
        rotation: of the training and validation images, each drawn once: "none", "uniform" over the circle, or "normal"
            with mean 45° and `sigma`.
        sigma: in degrees; "normal" alone.
        epochs, batch_size, lr, weight_decay: of the recipe.
        recipe: "halving": Adam, the rate halved after each fifth of the training, which are 10 of the paper's epochs;
            "one-cycle": Adam with PyTorch's OneCycleLR; "sgd": momentum 0.9, a tenth of the rate after each third.
        crop_padding, flip: training images are padded by so many pixels and cut at random, and mirrored at random.
        circle_crop: whether CircleCrop hides the corners, in training and in tests.
        angles: how many angles of the circle, from 0° on, the test images are turned by; a multiple of 4.
        train_images, validation_images, test_images: how many of the split to use at most, evenly spread over it; None for
            all.  The published run of the digits has 8,000 and 2,000 of the first two.
        angle_images: how many of the test images, at most, are turned by each of the angles; None for all.
        width: fields (plain: channels) of the first layers; None for the network's own.
        seed: of weights, rotations and order.
        algorithm: see gconv_ext.functional; "auto" alone for plain networks.
        precision: as pytorch-lightning names it.
    """

    model: str
    size: int = 28
    dataset: str = "mnist"
    rotation: str = "none"
    sigma: float = 20.0
    epochs: int = 50
    batch_size: int = 256
    lr: float = 0.01
    weight_decay: float = 1e-5
    recipe: str = "halving"
    crop_padding: int = 0
    flip: bool = False
    circle_crop: bool = True
    angles: int = 36
    train_images: int | None = None
    validation_images: int | None = None
    test_images: int | None = None
    angle_images: int | None = None
    width: int | None = None
    seed: int = 0
    algorithm: str = "auto"
    precision: str = "32-true"

    def __post_init__(self):
        for name, allowed in (
            ("model", MODELS), ("dataset", IMAGE_SETS), ("rotation", ROTATIONS), ("recipe", RECIPES)
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in (
            "size", "epochs", "batch_size", "lr", "angles", "train_images", "validation_images", "test_images",
            "angle_images", "width",
        ):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("sigma", "weight_decay", "crop_padding", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.angles % 4:
            raise InputError(f"angles must be a multiple of 4, for the quarter turns among them, got {self.angles}")
        if self.group is None and self.algorithm != "auto":
            raise InputError(f"algorithm must be 'auto' for model {self.model}, got {self.algorithm!r}")

    @property
    def name(self) -> str:
        """Names the run's folder."""
        rotation = f"normal{self.sigma:g}" if self.rotation == "normal" else self.rotation
        width = f"-width{self.width}" if self.width else ""
        return f"{self.model}-{self.size}-{self.dataset}-{rotation}{width}-seed{self.seed}"

    @property
    def group(self) -> str | None:
        return MODELS[self.model]

    def network(self, algorithm: str | None = None) -> torch.nn.Module:
        images = IMAGE_SETS[self.dataset]
        options = dict(in_channels=images.channels, num_classes=images.classes, algorithm=algorithm or self.algorithm)
        return create_model(self.model, **options, **({} if self.width is None else {"width": self.width}))
