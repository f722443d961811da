"""gconv-ext train sixes: paper 4's toy tasks on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from .algorithms import ALGORITHMS
from .cli_noise import needs_train_extra

# Of experiments.sixes, which needs the extra.
MODELS = (
    "strict", "partial", "t2-ending", "mlp-ending", "augerino",
    "soft-none", "soft-rotation", "soft-translation", "soft-both",
)  # fmt: skip


def add_train(experiments) -> None:
    sixes = experiments.add_parser(
        "sixes",
        help="papers 2 and 4: strict, partial and soft networks on sixes, turned or mirrored",
        description="Paper 4's toy tasks: is a six turned by half a turn (180), is it mirrored (M)? The models soft-… are "
        "paper 2's network, over SE2.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sixes.set_defaults(command=_train)
    what = sixes.add_argument_group("what to train")
    what.add_argument("--task", choices=["180", "M"], default="180")
    what.add_argument("--model", nargs="+", choices=MODELS, default=["strict", "partial"])
    what.add_argument(
        "--group", choices=["SE2", "E2", "D1"], help="without it SE2 for task 180, D1 (the mirror alone) for M"
    )
    what.add_argument("--elements", type=int, default=8, metavar="N", help="rotations sampled")
    what.add_argument("--width", type=int, default=10, help="fields of the lifting layer")
    what.add_argument("--epochs", type=int, default=8)
    what.add_argument("--batch-size", type=int, default=64)
    what.add_argument("--lr", type=float, default=0.001, help="learning rate of Adam")
    what.add_argument("--warmup", type=int, default=0, metavar="EPOCHS", help="epochs before the cosine")
    what.add_argument("--distribution-lr", type=float, default=0.1, help="learning rate of the distributions")
    what.add_argument("--alpha", type=float, default=0.01, help="factor of the penalty (augerino)")
    what.add_argument("--seed", type=int, default=0)
    what.add_argument("--algorithm", choices=ALGORITHMS, default="auto")
    where = sixes.add_argument_group("where and how")
    where.add_argument("--data-dir", type=Path, help="folder with MNIST's idx files; without it, the package's digits")
    where.add_argument("--out", type=Path, required=True, help="folder for results, checkpoints and the picture")
    where.add_argument("--resume", action="store_true", help="go on with the runs found in --out")
    where.add_argument("--accelerator", default="auto", help="as pytorch-lightning names them: auto, cpu, gpu, …")


def _train(options) -> int:
    needs_train_extra()
    from .data import load_digits
    from .experiments import sixes
    from .experiments.sixes_figures import draw_curves
    from .training.results import read_rows

    shared = {name: getattr(options, name) for name in (
        "task", "elements", "width", "epochs", "batch_size", "lr", "warmup", "distribution_lr", "alpha", "seed",
        "algorithm",
    )}  # fmt: skip
    shared["group"] = options.group or {"180": "SE2", "M": "D1"}[options.task]
    configs = [sixes.SixesConfig(model=model, **shared) for model in options.model]
    digits = load_digits(options.data_dir)
    print(f"data: {digits.origin}", flush=True)
    for config in configs:
        sixes.run(config, digits, options.out, resume=options.resume, accelerator=options.accelerator)
    rows = read_rows(options.out / "results.jsonl")
    table = sixes.table(rows)
    (options.out / "table.md").write_text(table + "\n")
    print(f"\n{table}\n")
    print(f"results: {options.out / 'results.jsonl'}, {options.out / 'table.md'}")
    if any(row["probability_of_six"] for row in rows):
        print(f"picture: {draw_curves(rows, options.out / 'fig4.png')}")
    return 0
