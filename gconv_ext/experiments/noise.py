"""Paper 1, «Relaxed Equivariance for Anisotropic Noise»: three networks on noisy rotated digits (its Table 1), and two
over p4m."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path

import torch

from ..data import Digits, noisy_split
from ..equivariance import equivariance_error
from ..training import runs
from ..training.classifier import ImageClassifier
from ..training.fit import SplitData
from ..training.results import append_row, versions
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
    if resume and (row := runs.finished_row(out / "results.jsonl", config.name, identity, with_defaults)):
        return row
    checkpoint = out / config.name / "last.ckpt"
    module = train_network(
        config, digits, checkpoint, identity, resume=resume, accelerator=accelerator, processes=processes
    )  # fmt: skip

    module.eval()
    test_images, test_labels = digits.splits["test"]
    noisy, clean = noisy_split(test_images, "test", config.noise, config.sigma, config.seed, config.correlation)
    labels = torch.tensor(test_labels, dtype=torch.long)
    algorithms = [config.algorithm] if config.model == "plain" else ["reference", "dense", config.algorithm]
    batch = noisy[: config.batch_size], labels[: config.batch_size]
    seconds = runs.step_seconds(config.network, algorithms, *batch, module.trained_on)
    noisy, clean = (images.to(next(module.parameters()).dtype) for images in (noisy, clean))  # float64 with 64-true
    error = equivariance_error(module.model, noisy[:256], "D4" if config.model.endswith("p4m") else "C4")
    row = {
        "experiment": "noise",
        "name": config.name,
        "config": identity,
        "data": {"origin": digits.origin, **{split: len(digits.splits[split][1]) for split in digits.splits}},
        "versions": versions(),
        "parameters": runs.count_parameters(module.model),
        "epochs": module.history,
        "test_noisy_accuracy": runs.accuracy(module.model, noisy, labels),
        "test_clean_accuracy": runs.accuracy(module.model, clean, labels),
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
    alpha = config.alpha if config.relaxed else 0.0
    return runs.train(
        lambda: ImageClassifier(config.network(), config.lr, alpha, identity), lambda: _split_data(config, digits),
        checkpoint, identity, seed=config.seed, epochs=config.epochs, resume=resume, accelerator=accelerator,
        processes=processes, precision=config.precision, completed=with_defaults,
    )  # fmt: skip


def _split_data(config: NoiseConfig, digits: Digits) -> SplitData:
    splits = {}
    for split in ("train", "validation"):
        images, labels = digits.splits[split]
        limit = config.train_digits if split == "train" else None
        noisy, _ = noisy_split(images[:limit], split, config.noise, config.sigma, config.seed, config.correlation)
        splits[split] = noisy, torch.tensor(labels[:limit], dtype=torch.long)
    return SplitData(splits["train"], splits["validation"], config.batch_size, config.seed)


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
