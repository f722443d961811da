"""Trains a classifier with pytorch-lightning: devices, precision, processes, checkpoints, progress."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, RichProgressBar
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset, TensorDataset

from ..errors import InputError
from .classifier import ImageClassifier


class SplitData(pl.LightningDataModule):
    """Training and validation data, shared out over the processes.

    The order of an epoch depends on seed and epoch alone: P processes that take batch_size / P each form the same global
    batches as one process.  The last batch of an epoch is left out when it is not full, so that every step counts alike.
    """

    def __init__(
        self, train: Dataset | tuple[Tensor, ...], validation: Dataset | tuple[Tensor, ...], batch_size: int, seed: int,
        workers: int = 0,
    ):  # fmt: skip
        """Splits as datasets, or as tensors with the images first; `workers` processes read them."""
        super().__init__()
        sets = (split if isinstance(split, Dataset) else TensorDataset(*split) for split in (train, validation))
        self.train, self.validation = sets
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        images = len(self.train)  # type: ignore[arg-type]  # torch leaves len() out of Dataset
        if images < batch_size:
            raise InputError(f"batch_size must be at most the {images} training images, got {batch_size}")

    def train_dataloader(self):
        assert self.trainer is not None
        processes = self.trainer.world_size
        sampler: DistributedSampler[int] = DistributedSampler(
            self.train, processes, self.trainer.global_rank, seed=self.seed
        )
        size = self.batch_size // processes
        return DataLoader(self.train, size, sampler=sampler, drop_last=True, num_workers=self.workers)

    def val_dataloader(self):
        assert self.trainer is not None
        images = len(self.validation)  # type: ignore[arg-type]
        # Each process takes every P-th image: no image counts twice, as padding to equal shares would have it.
        mine = range(self.trainer.global_rank, images, self.trainer.world_size)
        return DataLoader(Subset(self.validation, mine), 500, num_workers=self.workers)


class KeepLast(Checkpoint):
    """Writes `path` before the first epoch and after each: whole or not at all, the old one replaced by the new."""

    def __init__(self, path: Path):
        self.path = path

    def _save(self, trainer: pl.Trainer) -> None:
        unfinished = self.path.with_suffix(".unfinished")
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            os.replace(unfinished, self.path)

    def on_train_start(self, trainer, module) -> None:
        if not self.path.exists():
            self._save(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        self._save(trainer)


class EpochLines(Callback):
    """One line an epoch, for logs and for terminals without a progress bar."""

    def on_train_epoch_end(self, trainer, module) -> None:
        if trainer.is_global_zero:
            row = module.history[-1]
            print(
                f"  epoch {row['epoch'] + 1:>3}/{trainer.max_epochs}: "
                f"train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}; "
                f"validation loss {row['validation_loss']:.4f}, accuracy {row['validation_accuracy']:.2%}; "
                f"{row['train_seconds']:.1f} s",
                flush=True,
            )


def read_checkpoint(path: Path) -> dict:
    """A checkpoint of `fit`.

    Raises:
        OSError: the file cannot be opened.
        InputError: the file is no whole checkpoint of this program.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise InputError(f"{path}: not a whole checkpoint ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or not {"config", "history", "state_dict"} <= set(checkpoint):
        raise InputError(f"{path}: a checkpoint, but not one of gconv-ext train")
    return checkpoint


def fit(
    module: ImageClassifier, data: SplitData, checkpoint: Path, *, epochs: int, accelerator: str = "auto",
    processes: int = 1, precision: str = "32-true", callbacks: Sequence[Callback] = (),
) -> None:  # fmt: skip
    """Trains to `epochs` epochs, from `checkpoint` on when it is there.  Afterwards `module` holds weights and history.

    Args:
        checkpoint: file to keep the last finished epoch in.
        accelerator, precision: as pytorch-lightning names them ("cpu", "gpu", "auto"; "32-true", "bf16-mixed", …).
        processes: how many share a batch (DDP).
        callbacks: more of them; what they have learned goes through the checkpoint.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the checkpoint is there to go on from.
        InputError: the machine has no such accelerator; the batch is not a multiple of `processes`.
    """
    if data.batch_size % processes:
        raise InputError(f"batch_size must be a multiple of the {processes} processes, got {data.batch_size}")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    resume_from = checkpoint if checkpoint.exists() else None
    bar = sys.stderr.isatty()
    try:
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=processes,
            strategy="ddp_spawn" if processes > 1 else "auto",
            precision=precision,  # type: ignore[arg-type]  # any word: pytorch-lightning refuses what it does not know
            max_epochs=epochs,
            callbacks=[*callbacks, KeepLast(checkpoint), EpochLines()] + ([RichProgressBar(leave=False)] if bar else []),
            enable_progress_bar=bar,
            logger=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
    except (pl.utilities.exceptions.MisconfigurationException, ValueError) as error:  # type: ignore[attr-defined]
        raise InputError(f"this machine cannot train with accelerator={accelerator!r}, precision={precision!r}: {error}") from error
    try:
        trainer.fit(module, data, ckpt_path=resume_from, weights_only=True)
    except SystemExit as error:  # how pytorch-lightning ends after Ctrl-C
        raise KeyboardInterrupt(f"the same command with --resume goes on from {checkpoint}") from error
    # With several processes the trained module lived in another one; the checkpoint has it in every case.
    state = read_checkpoint(checkpoint)
    module.load_state_dict(state["state_dict"])
    module.on_load_checkpoint(state)
    module.trained_on = trainer.strategy.root_device
    for callback in callbacks:
        callback.load_state_dict(state["callbacks"].get(callback.state_key, {}))
