"""Paper 1, «Relaxed Equivariance for Anisotropic Noise»: three networks on noisy rotated digits (its Table 1), and two
over p4m."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from ..data import Digits, noisy_split
from ..equivariance import equivariance_error
from ..errors import InputError
from ..training.classifier import ImageClassifier
from ..training.fit import SplitData, fit, read_checkpoint
from ..training.results import append_row, check_same, read_rows, versions
from .noise_config import NoiseConfig, with_defaults


def run(
    config: NoiseConfig, digits: Digits, out: Path, *, resume: bool = False, accelerator: str = "auto", processes: int = 1
) -> dict:
    """Trains, tests and measures one network, and appends its row to out/results.jsonl.

    Args:
        config: what to train.
        digits: the data.
        out: folder of results; the run's checkpoint goes to out/<config.name>/last.ckpt.
        resume: go on from that checkpoint, or return the row of a finished run.
        accelerator, processes: see training.fit.fit.

    Returns:
        The row: config, data, versions, epochs (one dict each), test figures.

    Raises:
        InputError: the run's folder is there already and `resume` is not given, or it is of another configuration; the
            batch is not a multiple of `processes`.
        OSError: `out` cannot be written.
        KeyboardInterrupt: after Ctrl-C; call again with resume=True.
    """
    identity = asdict(config) | {"data": digits.sha256()}
    finished = [row for row in read_rows(out / "results.jsonl") if row["name"] == config.name]
    if finished and resume:
        check_same(identity, with_defaults(finished[-1]["config"]), out / "results.jsonl")
        print(f"{config.name}: finished already, see {out / 'results.jsonl'}; another --out trains again", flush=True)
        return finished[-1]
    checkpoint = out / config.name / "last.ckpt"
    module = train_network(
        config, digits, checkpoint, identity, resume=resume, accelerator=accelerator, processes=processes
    )  # fmt: skip

    module.eval()
    test_images, test_labels = digits.splits["test"]
    noisy, clean = noisy_split(test_images, "test", config.noise, config.sigma, config.seed, config.correlation)
    labels = torch.tensor(test_labels, dtype=torch.long)
    seconds = _step_seconds(config, noisy, labels, module.trained_on)
    error = equivariance_error(module.model, noisy[:256], "D4" if config.model.endswith("p4m") else "C4")
    row = {
        "experiment": "noise",
        "name": config.name,
        "config": identity,
        "data": {"origin": digits.origin, **{split: len(digits.splits[split][1]) for split in digits.splits}},
        "versions": versions(),
        "parameters": count_parameters(module),
        "epochs": module.history,
        "test_noisy_accuracy": _accuracy(module.model, noisy, labels),
        "test_clean_accuracy": _accuracy(module.model, clean, labels),
        "equivariance_error": {"eq14": error.eq14.tolist(), "relative": error.relative.tolist()},
        "seconds_per_epoch": statistics.median(epoch["train_seconds"] for epoch in module.history),
        "steps_per_second": {name: 1 / statistics.median(times) for name, times in seconds.items()},
        "speed_against_reference": None if config.model == "plain" else statistics.median(
            reference / own for reference, own in zip(seconds["reference"], seconds[config.algorithm])
        ),
    }
    append_row(out / "results.jsonl", row)
    return row


def train_network(
    config: NoiseConfig, digits: Digits, checkpoint: Path, identity: dict, *, resume: bool, accelerator: str,
    processes: int,
) -> ImageClassifier:  # fmt: skip
    """Trains one network on the training split, measures it on the validation split after every epoch, and keeps it in
    `checkpoint` with `identity`.  The test split is not read.  Arguments and errors as for `run`."""
    if config.batch_size % processes:
        raise InputError(f"batch_size must be a multiple of the {processes} processes, got {config.batch_size}")
    name = checkpoint.parent.name
    if checkpoint.exists():
        if not resume:
            raise InputError(f"{checkpoint.parent} is there already; give --resume to go on with it, or another --out")
        saved = read_checkpoint(checkpoint)
        check_same(identity, with_defaults(saved["config"]), checkpoint)
        print(f"{name}: going on after epoch {len(saved['history'])}", flush=True)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)

    pl.seed_everything(config.seed, verbose=False)
    module = ImageClassifier(config.network(), config.lr, config.alpha if config.relaxed else 0.0, identity)
    print(f"{name}: {count_parameters(module):,} parameters, {config.epochs} epochs", flush=True)
    data = _split_data(config, digits)
    fit(
        module, data, checkpoint, epochs=config.epochs, accelerator=accelerator, processes=processes,
        precision=config.precision,
    )  # fmt: skip
    return module


def count_parameters(module: ImageClassifier) -> int:
    return sum(p.numel() for p in module.model.parameters())


def _split_data(config: NoiseConfig, digits: Digits) -> SplitData:
    splits = {}
    for split in ("train", "validation"):
        images, labels = digits.splits[split]
        limit = config.train_digits if split == "train" else None
        noisy, _ = noisy_split(images[:limit], split, config.noise, config.sigma, config.seed, config.correlation)
        splits[split] = noisy, torch.tensor(labels[:limit], dtype=torch.long)
    if len(splits["train"][1]) < config.batch_size:
        raise InputError(f"batch_size must be at most the {len(splits['train'][1])} training digits, got {config.batch_size}")
    return SplitData(splits["train"], splits["validation"], config.batch_size, config.seed)


@torch.no_grad()
def _accuracy(model, images, labels) -> float:
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500)))
    return right / len(labels)


def _step_seconds(config: NoiseConfig, images, labels, device: torch.device, steps: int = 7) -> dict[str, list[float]]:
    """Seconds of each of `steps` training steps (forward and backward of one batch) by algorithm; the algorithms take
    turns, so that what else the machine does slows them all alike."""
    algorithms = [config.algorithm] if config.model == "plain" else dict.fromkeys(["reference", "dense", config.algorithm])
    networks = {name: config.network(name).to(device) for name in algorithms}
    images, labels = images[: config.batch_size].to(device), labels[: config.batch_size].to(device)
    seconds = {name: [] for name in networks}
    for step in range(steps + 1):
        for name, network in networks.items():
            start = time.perf_counter()
            F.cross_entropy(network(images), labels).backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if step:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def table(rows: list[dict]) -> str:
    """Markdown table of finished runs, in the order of the paper's Table 1 with our measurements added."""
    lines = [
        "| noise | σ | network | parameters | noisy % | clean % | equivariance error | s / epoch | speed, × reference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        config = row["config"]
        speed = row["speed_against_reference"]
        noise, network = config["noise"], config["model"]
        if config.get("correlation"):
            noise += f", correlated over {config['correlation']:g} px"
        if config.get("width"):
            network += f", width {config['width']}"
        lines.append(
            f"| {noise} | {config['sigma']:g} | {network} | {row['parameters']:,} "
            f"| {100 * row['test_noisy_accuracy']:.2f} | {100 * row['test_clean_accuracy']:.2f} "
            f"| {max(row['equivariance_error']['relative']):.1e} | {row['seconds_per_epoch']:.1f} "
            f"| {'–' if speed is None else f'{speed:.2f}'} |"
        )
    return "\n".join(lines)
