"""What every experiment's run does before and after its training: finished, resumed, refused; counted and tested."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from ..errors import InputError
from .classifier import ImageClassifier
from .fit import SplitData, fit, read_checkpoint
from .results import check_same, read_rows


def finished_row(results: Path, name: str, identity: dict, completed: Callable[[dict], dict] = dict) -> dict | None:
    """The last row named `name` in a results file, or None.

    Args:
        results: the file; it need not be there.
        name: of the run.
        identity: what the row's "config" has to be.
        completed: puts the defaults of newer options into a recorded configuration.

    Raises:
        InputError: the row is of another configuration, or the file is broken.
    """
    rows = [row for row in read_rows(results) if row["name"] == name]
    if not rows:
        return None
    check_same(identity, completed(rows[-1]["config"]), results)
    print(f"{name}: finished already, see {results}; another --out trains again", flush=True)
    return rows[-1]


def train(
    make_module: Callable[[], ImageClassifier], make_data: Callable[[], SplitData], checkpoint: Path, identity: dict, *,
    seed: int, epochs: int, resume: bool = False, accelerator: str = "auto", processes: int = 1,
    precision: str = "32-true", completed: Callable[[dict], dict] = dict, callbacks: Sequence[Callback] = (),
) -> ImageClassifier:  # fmt: skip
    """Trains one network to `epochs` epochs and keeps it in `checkpoint`, whose folder's name is the run's.

    Args:
        make_module: makes the network and how it learns, once the seed is set.
        make_data: makes the splits.
        checkpoint: file of the last finished epoch.
        identity: what has to be the same to go on from it.
        seed: of weights and of whatever the training draws.
        resume: go on from the checkpoint.
        completed: as for `finished_row`.
        epochs, accelerator, processes, precision, callbacks: see training.fit.fit.

    Returns:
        The trained module.

    Raises:
        InputError: the checkpoint is there and `resume` is not given, or it is of another configuration.
        OSError: the folder cannot be written.
        KeyboardInterrupt: after Ctrl-C.
    """
    name = checkpoint.parent.name
    if checkpoint.exists():
        if not resume:
            raise InputError(f"{checkpoint.parent} is there already; give --resume to go on with it, or another --out")
        saved = read_checkpoint(checkpoint)
        check_same(identity, completed(saved["config"]), checkpoint)
        print(f"{name}: going on after epoch {len(saved['history'])}", flush=True)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)

    pl.seed_everything(seed, verbose=False)
    module = make_module()
    print(f"{name}: {count_parameters(module.model):,} parameters, {epochs} epochs", flush=True)
    fit(
        module, make_data(), checkpoint, epochs=epochs, accelerator=accelerator, processes=processes,
        precision=precision, callbacks=callbacks,
    )  # fmt: skip
    return module


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@torch.no_grad()
def accuracy(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Share of images [N, C, H, W] whose largest logit is at their label [N]."""
    right = sum((network(x).argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500)))
    return right / len(labels)


def step_seconds(
    make: Callable[[str], nn.Module], algorithms: Iterable[str], images: Tensor, labels: Tensor, device: torch.device,
    steps: int = 7,
) -> dict[str, list[float]]:  # fmt: skip
    """Seconds of each of `steps` training steps (forward and backward of this batch) by algorithm; the algorithms take
    turns, so that what else the machine does slows them all alike.

    Args:
        make: makes the network with an algorithm.
        algorithms: their names.
        images, labels: the batch.
        device: where to measure.
        steps: how many, after one that warms up.
    """
    networks = {name: make(name).to(device) for name in algorithms}
    images, labels = images.to(device), labels.to(device)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for step in range(steps + 1):
        for name, network in networks.items():
            start = time.perf_counter()
            F.cross_entropy(network(images), labels).backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if step:
                seconds[name].append(time.perf_counter() - start)
    return seconds
