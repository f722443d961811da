"""gconv-ext reproduce, gconv-ext report: the papers' tables and figures on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from .cli_noise import needs_train_extra
from .errors import InputError


def add_commands(commands) -> None:
    reproduce = commands.add_parser(
        "reproduce",
        help="train what a table or figure of the papers shows",
        description="Trains every run of a table or figure of the papers and appends its row to OUT/TARGET/results.jsonl. "
        "gconv-ext report makes tables and pictures from them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    reproduce.set_defaults(command=_reproduce)
    reproduce.add_argument("target", metavar="TARGET", nargs="?", help="such as paper1-table1; --list has all")
    reproduce.add_argument("--list", action="store_true", help="list the targets, and how many runs each has at this scale")
    reproduce.add_argument(
        "--scale", type=float, default=1.0, metavar="S",
        help="0 < S ≤ 1: training images, epochs, seeds and batches (not below 16) are each multiplied by it, and rounded up, "
        "learning rates by the square root of the batch's factor, those of learned subsets divided by the factor of "
        "the steps",
    )  # fmt: skip
    reproduce.add_argument("--seeds", type=int, metavar="N", help="this many, whatever the scale")
    reproduce.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, each with its share of threads")
    reproduce.add_argument("--resume", action="store_true", help="go on with what is found in OUT/TARGET")
    reproduce.add_argument("--out", type=Path, default=Path("results"), help="folder of results")
    reproduce.add_argument("--accelerator", default="auto", help="as pytorch-lightning names them: auto, cpu, gpu, …")
    reproduce.add_argument(
        "--data-dir", type=Path,
        help="folder with the data set's files (MNIST: its four idx files, see data.load_images); without it, the package's digits",
    )  # fmt: skip
    reproduce.add_argument("--download", action="store_true", help="fetch the data set into --data-dir by torchvision")

    report = commands.add_parser(
        "report",
        help="tables and pictures of what reproduce has trained, as Markdown and as one HTML page",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    report.set_defaults(command=_report)
    report.add_argument("--results", type=Path, default=Path("results"), help="what reproduce had as --out")
    report.add_argument("--out", type=Path, required=True, help="folder for report.html, report.md and the pictures")


def _reproduce(options) -> int:
    from .experiments.targets import check_scale, load_target, shrunk, target_names

    check_scale(options.scale, options.seeds)
    if options.list:
        names = target_names()
        width = max(map(len, names))
        for target in map(load_target, names):
            seeds = options.seeds or shrunk(target.seeds, options.scale)
            print(f"{target.name:<{width}} {len(target.grid) * seeds:>4} runs  {target.title}")
        return 0
    if options.target is None:
        raise InputError("name a TARGET, or give --list")
    target = load_target(options.target)
    needs_train_extra()
    from .data import load_images
    from .experiments.reproduce import RESULTS, reproduce

    size = max(settings.get("size", 224) for settings in target.grid)
    images = load_images(target.dataset, options.data_dir, size=size, download=options.download)
    print(f"data: {images.origin}", flush=True)
    reproduce(
        target, images, options.out, scale=options.scale, seeds=options.seeds, jobs=options.jobs, resume=options.resume,
        accelerator=options.accelerator,
    )  # fmt: skip
    print(f"results: {options.out / target.folder / RESULTS}; gconv-ext report --results {options.out} --out DIR shows them")
    return 0


def _report(options) -> int:
    needs_train_extra()
    from .experiments.report import write_report

    for path in write_report(options.results, options.out):
        print(path)
    return 0
