"""The Lightning module that trains a classifier and keeps the figures of every epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import cast

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric


class ImageClassifier(pl.LightningModule):
    """Cross-entropy plus α times the network's equivariance penalty (paper 1, Eq. 7), with Adam.

    Args:
        model: from [B, C, H, W] to logits [B, num_classes]; its `equivariance_penalty()`, if it has one, is used.
        lr: learning rate.
        alpha: factor of the penalty.
        config: what identifies the run; stored in every checkpoint.

    Attributes:
        history: one dict an epoch; goes into checkpoints, so that a resumed run has them all.
        trained_on: the device of the last training; the weights come back to the CPU.
    """

    def __init__(self, model: nn.Module, lr: float, alpha: float, config: dict):
        super().__init__()
        self.model, self.lr, self.alpha, self.config = model, lr, alpha, config
        self.history: list[dict] = []
        self.trained_on = torch.device("cpu")
        names = [f"{split}_{figure}" for split in ("train", "validation") for figure in ("loss", "accuracy")]
        # A ModuleDict does not say of what.
        self.means = cast(Mapping[str, MeanMetric], nn.ModuleDict({name: MeanMetric() for name in names}))
        self._started = self._trained = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def _penalty(self) -> Tensor:
        penalty = getattr(self.model, "equivariance_penalty", None)
        return penalty() if penalty else torch.zeros((), device=self.device)

    def _step(self, split: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels)
        self.means[f"{split}_loss"].update(loss.detach(), len(labels))
        self.means[f"{split}_accuracy"].update((logits.argmax(1) == labels).float())
        return loss

    def training_step(self, batch, _) -> Tensor:
        return self._step("train", batch) + self.alpha * self._penalty()

    def validation_step(self, batch, _) -> None:
        self._step("validation", batch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def on_train_epoch_start(self) -> None:
        for mean in self.means.values():
            mean.reset()
        self._started = time.perf_counter()

    def on_validation_start(self) -> None:
        self._trained = time.perf_counter()

    def on_validation_epoch_end(self) -> None:  # the end of an epoch: validation follows its training
        self.history.append(
            {
                "epoch": self.current_epoch,
                **{name: mean.compute().item() for name, mean in self.means.items()},
                "equivariance_penalty": self._penalty().item(),
                "train_seconds": self._trained - self._started,
            }
        )

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["config"], checkpoint["history"] = self.config, self.history

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.history = checkpoint["history"]
