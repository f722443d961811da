"""Hyper-parameter search for paper 1's networks over α, L and width, which the paper leaves open.

Every trial trains on the training split and is judged by the validation split; the test split is not even handed to it.
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ..data import Digits
from ..errors import InputError
from ..training.results import append_row, read_rows, versions
from ..training.runs import count_parameters
from .noise import train_network
from .noise_config import NoiseConfig, with_defaults

RESULTS = "search.jsonl"


def settings(
    base: NoiseConfig, alphas: Sequence[float], num_filter_banks: Sequence[int], widths: Sequence[int],
    seeds: Sequence[int], *, trials: int | None = None, draw_seed: int = 0,
) -> list[NoiseConfig]:  # fmt: skip
    """The trials of a search: every combination of α, L and width, or `trials` of them drawn without replacement, each
    with every seed.

    Raises:
        InputError: a value that NoiseConfig refuses, a list with repetitions, several α or L for a network that has
            none, more trials than combinations.
    """
    for name, values in (("alpha", alphas), ("num_filter_banks", num_filter_banks), ("width", widths), ("seed", seeds)):
        if len(set(values)) < len(values):
            raise InputError(f"{name} must be given once for each value, got {' '.join(map(str, values))}")
    if not base.relaxed and (len(alphas) > 1 or len(num_filter_banks) > 1):
        raise InputError(f"alpha and num_filter_banks are of the relaxed networks: give one of each for {base.model!r}")
    grid = list(itertools.product(alphas, num_filter_banks, widths))
    if trials is not None:
        if not 1 <= trials <= len(grid):
            raise InputError(f"trials must be from 1 to the {len(grid)} combinations, got {trials}")
        grid = sorted(random.Random(draw_seed).sample(grid, trials))
    return [
        replace(base, alpha=alpha, num_filter_banks=banks, width=width, seed=seed)
        for alpha, banks, width in grid for seed in seeds
    ]  # fmt: skip


def trial_name(config: NoiseConfig) -> str:
    """Names the trial's folder."""
    return f"{config.name}-alpha{config.alpha:g}-banks{config.num_filter_banks}"


def search(
    trials: list[NoiseConfig], digits: Digits, out: Path, *, resume: bool = False, accelerator: str = "auto",
    processes: int = 1,
) -> list[dict]:  # fmt: skip
    """Trains every trial that out/search.jsonl does not have yet, and appends its row.

    Args:
        trials: of `settings`.
        digits: the data; the test split is not read.
        out: folder of results; checkpoints go to out/trials/<trial>/last.ckpt.
        resume: go on with the search found in `out`.
        accelerator, processes: see training.fit.fit.

    Returns:
        The rows of these trials, in their order: config, versions, parameters, epochs (one dict each), and accuracy and
        loss on the validation split after the last epoch.

    Raises:
        InputError: a search is there already and `resume` is not given, or a trial's folder is of another
            configuration.
        OSError: `out` cannot be written.
        KeyboardInterrupt: after Ctrl-C; call again with resume=True.
    """
    results, data = out / RESULTS, digits.sha256()
    known = read_rows(results)
    if known and not resume:
        raise InputError(f"{results} is there already; give --resume to go on with it, or another --out")
    seen = digits._replace(splits={split: digits.splits[split] for split in ("train", "validation")})
    rows = []
    for number, config in enumerate(trials, 1):
        identity = asdict(config) | {"data": data}
        row = next((row for row in known if with_defaults(row["config"]) == identity), None)
        print(f"trial {number} of {len(trials)}: " + ("finished already" if row else trial_name(config)), flush=True)
        if row is None:
            row = _run_trial(config, seen, out, identity, resume, accelerator, processes)
            append_row(results, row)
        rows.append(row)
    return rows


def _run_trial(config, digits, out, identity, resume, accelerator, processes) -> dict:
    checkpoint = out / "trials" / trial_name(config) / "last.ckpt"
    module = train_network(
        config, digits, checkpoint, identity, resume=resume, accelerator=accelerator, processes=processes
    )  # fmt: skip
    last = module.history[-1]
    return {
        "experiment": "noise search",
        "name": trial_name(config),
        "config": identity,
        "versions": versions(),
        "parameters": count_parameters(module.model),
        "epochs": module.history,
        "validation_accuracy": last["validation_accuracy"],
        "validation_loss": last["validation_loss"],
    }


def ranking(rows: list[dict]) -> list[dict]:
    """One dict for each combination, its seeds averaged; best first: by validation accuracy, then loss."""
    combinations: dict[tuple, list[dict]] = {}
    for row in rows:
        config = row["config"]
        combinations.setdefault((config["alpha"], config["num_filter_banks"], config["width"]), []).append(row)
    found = [
        {
            "alpha": alpha,
            "num_filter_banks": banks,
            "width": width,
            "parameters": of_one[0]["parameters"],
            "seeds": len(of_one),
            "accuracy": statistics.mean(row["validation_accuracy"] for row in of_one),
            "loss": statistics.mean(row["validation_loss"] for row in of_one),
            "spread": statistics.pstdev(row["validation_accuracy"] for row in of_one),
            "seconds_per_epoch": statistics.median(epoch["train_seconds"] for row in of_one for epoch in row["epochs"]),
        }
        for (alpha, banks, width), of_one in combinations.items()
    ]
    return sorted(found, key=lambda one: (-one["accuracy"], one["loss"]))


def table(rows: list[dict]) -> str:
    """Markdown table of the ranking."""
    lines = [
        "| α | L | width | parameters | seeds | validation % | ± | validation loss | s / epoch |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in ranking(rows):
        lines.append(
            f"| {one['alpha']:g} | {one['num_filter_banks']} | {one['width']} | {one['parameters']:,} | {one['seeds']} "
            f"| {100 * one['accuracy']:.2f} | {100 * one['spread']:.2f} | {one['loss']:.4f} "
            f"| {one['seconds_per_epoch']:.1f} |"
        )
    return "\n".join(lines)
