"""Which networks paper 1's experiment trains, and on what."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch

from ..data import NOISES
from ..errors import InputError
from ..models import create_model

PAPER_MODELS = ("plain", "p4", "relaxed")
MODELS = {
    "plain": "noise_plain_cnn", "p4": "noise_p4_cnn", "relaxed": "noise_relaxed_p4_cnn", "p4m": "noise_p4m_cnn",
    "relaxed-p4m": "noise_relaxed_p4m_cnn", "relaxed-translation": "noise_relaxed_translation_cnn",
}  # fmt: skip


@dataclass(frozen=True)
class NoiseConfig:
    """One run; the defaults are the paper's.

    Attributes:
        model: one of MODELS.
        noise, sigma, correlation: see gconv_ext.data.noised.
        epochs, batch_size, lr: of Adam.
        alpha: factor of Eq. 7's penalty; relaxed only.
        num_filter_banks: of the relaxed networks.
        relax_on: of those over a group.
        width: fields (plain: channels) of each convolution; None for the network's own.
        seed: of weights, data and order.
        train_digits: how many of the training split to use; None for all.
        algorithm: see gconv_ext.functional.
        precision: as pytorch-lightning names it.
    """

    model: str
    noise: str = "aniso"
    sigma: float = 0.2
    epochs: int = 20
    batch_size: int = 64
    lr: float = 0.002
    alpha: float = 1e-4
    num_filter_banks: int = 3
    relax_on: str = "output"
    seed: int = 0
    train_digits: int | None = None
    algorithm: str = "auto"
    precision: str = "32-true"
    # Newer than the first results files; see with_defaults.
    correlation: float = 0.0
    width: int | None = None

    def __post_init__(self):
        for name, allowed in (("model", MODELS), ("noise", NOISES)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("epochs", "batch_size", "num_filter_banks", "lr", "width"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("sigma", "alpha", "seed", "correlation"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.train_digits is not None and self.train_digits < self.batch_size:
            raise InputError(f"train_digits must be at least one batch, {self.batch_size}, got {self.train_digits}")

    @property
    def name(self) -> str:
        """Names the run's folder."""
        correlation = f"-correlation{self.correlation:g}" if self.correlation else ""
        width = f"-width{self.width}" if self.width else ""
        return f"{self.model}-{self.noise}-{self.sigma:g}{correlation}{width}-seed{self.seed}"

    @property
    def relaxed(self) -> bool:
        """Whether the network has relaxed layers, which alpha and num_filter_banks are about."""
        return self.model.startswith("relaxed")

    def network(self, algorithm: str | None = None) -> torch.nn.Module:
        options: dict[str, Any] = {} if self.model == "plain" else {"algorithm": algorithm or self.algorithm}
        if self.relaxed:
            options["num_filter_banks"] = self.num_filter_banks
        if self.relaxed and self.model != "relaxed-translation":
            options["relax_on"] = self.relax_on
        if self.width is not None:
            options["width"] = self.width
        return create_model(MODELS[self.model], **options)


def with_defaults(recorded: dict) -> dict:
    """A configuration from a results file or checkpoint, and the defaults of newer options, which it ran with."""
    return {field.name: field.default for field in fields(NoiseConfig)} | recorded
