"""gconv-ext train noise, gconv-ext search noise: paper 1 on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from .algorithms import ALGORITHMS
from .checks import RELAX_ON
from .data.noise import NOISES
from .errors import InputError
from .experiments.noise_config import MODELS, PAPER_MODELS, NoiseConfig

# Small batches: what a short run lacks is steps.
DEMO = {"epochs": 10, "batch_size": 16}
# What a search tries by default, around the paper's 1e-4 and 3.
ALPHAS, NUM_FILTER_BANKS = [1e-5, 1e-4, 1e-3], [1, 3, 5]


def add_train(experiments) -> None:
    noise = experiments.add_parser(
        "noise",
        help="paper 1: plain, p4 and relaxed p4 network on noisy rotated digits",
        description="Paper 1: plain, p4 and relaxed p4 networks on noisy rotated digits. The defaults are the paper's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    noise.set_defaults(command=_train)
    what = noise.add_argument_group("what to train")
    what.add_argument("--model", choices=[*MODELS, "all"], default="all", help="all: the paper's plain, p4 and relaxed")
    _add_training(what)
    what.add_argument("--alpha", type=float, default=1e-4, help="factor of the penalty of Eq. 7 (relaxed)")
    what.add_argument("--num-filter-banks", type=int, default=3, metavar="L", help="filter banks a layer (relaxed)")
    what.add_argument("--width", type=int, help="fields (plain: channels) of each layer; the network's own without")
    what.add_argument("--seed", type=int, default=0)
    _add_data(noise)
    _add_where(noise)


def add_search(experiments) -> None:
    noise = experiments.add_parser(
        "noise",
        help="paper 1: α, L and width by accuracy on the validation split",
        description="Paper 1: trains a network with every combination of α, L and width, or with some drawn at random, "
        "and ranks them by their accuracy on the validation split after the last epoch. The test split is not read.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    noise.set_defaults(command=_search)
    what = noise.add_argument_group("what to search")
    what.add_argument("--model", choices=MODELS, default="relaxed")
    what.add_argument(
        "--alpha", type=float, nargs="+", help=f"factors of the penalty of Eq. 7 (relaxed); {_listed(ALPHAS)} without"
    )
    what.add_argument(
        "--num-filter-banks", type=int, nargs="+", metavar="L",
        help=f"filter banks a layer (relaxed); {_listed(NUM_FILTER_BANKS)} without",
    )  # fmt: skip
    what.add_argument(
        "--width", type=int, nargs="+", default=[4, 6, 8], help="fields (plain: channels) of each convolution"
    )
    what.add_argument("--seed", type=int, nargs="+", default=[0], help="each combination is trained once with each")
    what.add_argument("--trials", type=int, metavar="N", help="N of the combinations, drawn at random; all without")
    what.add_argument("--draw-seed", type=int, default=0, help="of that drawing")
    how = noise.add_argument_group("what to train")
    _add_training(how)
    _add_data(noise)
    _add_where(noise)


def _add_training(group) -> None:
    group.add_argument("--noise", choices=NOISES, default="aniso")
    group.add_argument("--sigma", type=float, default=0.2, help="root of the noise's mean variance, in grey values")
    group.add_argument("--correlation", type=float, default=0.0, help="correlation length of the noise, in pixels")
    group.add_argument("--epochs", type=int, default=20)
    group.add_argument("--batch-size", type=int, default=64)
    short = ", ".join(f"{name} {value}" for name, value in DEMO.items()).replace("_", " ")
    group.add_argument("--demo", action="store_true", help=f"runs of minutes: {short}, in place of the two above")
    group.add_argument("--lr", type=float, default=0.002, help="learning rate of Adam")
    group.add_argument(
        "--relax-on", choices=RELAX_ON, default="output", help="element that indexes the weights (relaxed)"
    )
    group.add_argument("--algorithm", choices=ALGORITHMS, default="auto")


def _add_data(parser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--data-dir", type=Path, help="folder with idx files; without it, the digits of the package")
    data.add_argument("--dataset", choices=["mnist", "fashion"], default="mnist")
    data.add_argument("--download", action="store_true", help="fetch the dataset into --data-dir by torchvision")
    data.add_argument("--train-digits", type=int, metavar="N", help="use only the first N training digits")


def _add_where(parser) -> None:
    where = parser.add_argument_group("where and how")
    where.add_argument("--out", type=Path, required=True, help="folder for results, checkpoints and pictures")
    where.add_argument("--resume", action="store_true", help="go on with what is found in --out")
    where.add_argument("--accelerator", default="auto", help="as pytorch-lightning names them: auto, cpu, gpu, …")
    where.add_argument("--processes", type=int, default=1, help="processes that share each batch (DDP)")
    where.add_argument("--precision", default="32-true", help="as pytorch-lightning names them: 32-true, bf16-mixed, …")


def _listed(values) -> str:
    return " ".join(f"{value:g}" for value in values)


def needs_train_extra() -> None:
    try:
        import matplotlib  # noqa: F401
        import pytorch_lightning  # noqa: F401
    except ImportError as error:
        raise InputError(f"this command needs the training extra ({error}): pip install 'gconv_ext[train]'") from error


def _shared(options) -> dict:
    """What both commands take for every network that they train."""
    if options.processes < 1:
        raise InputError(f"--processes must be at least 1, got {options.processes}")
    shared = {name: getattr(options, name) for name in (
        "noise", "sigma", "correlation", "epochs", "batch_size", "lr", "relax_on", "train_digits", "algorithm",
        "precision",
    )}  # fmt: skip
    return shared | (DEMO if options.demo else {})


def _digits(options):
    from .data import load_digits

    digits = load_digits(options.data_dir, options.dataset, options.download)
    sizes = ", ".join(f"{len(labels):,} {split}" for split, (_, labels) in digits.splits.items())
    print(f"data: {digits.origin} ({sizes})", flush=True)
    return digits


def _train(options) -> int:
    needs_train_extra()
    from .experiments import noise
    from .experiments.noise_figures import draw_all
    from .training.results import read_rows

    own = {name: getattr(options, name) for name in ("alpha", "num_filter_banks", "width", "seed")}
    shared = _shared(options)
    models = PAPER_MODELS if options.model == "all" else [options.model]
    configs = [NoiseConfig(model=model, **shared, **own) for model in models]
    digits = _digits(options)
    for config in configs:
        noise.run(
            config, digits, options.out, resume=options.resume, accelerator=options.accelerator,
            processes=options.processes,
        )  # fmt: skip
    rows = read_rows(options.out / "results.jsonl")
    table = noise.table(rows)
    (options.out / "table.md").write_text(table + "\n")
    pictures = draw_all(rows, digits, options.out)
    print(f"\n{table}\n")
    print("equivariance error: max |f(g·x) − f(x)| / max |f(x)| of the logits over p4 or p4m, of noisy test digits")
    print("speed: a training step on the reference path over one on the run's own path, median of interleaved ratios")
    print(f"results: {options.out / 'results.jsonl'}, {options.out / 'table.md'}")
    print("pictures: " + ", ".join(str(path) for path in pictures))
    return 0


def _search(options) -> int:
    needs_train_extra()
    from .experiments import noise_search

    base = NoiseConfig(model=options.model, **_shared(options))
    alphas = options.alpha or (ALPHAS if base.relaxed else [base.alpha])
    banks = options.num_filter_banks or (NUM_FILTER_BANKS if base.relaxed else [base.num_filter_banks])
    trials = noise_search.settings(
        base, alphas, banks, options.width, options.seed, trials=options.trials, draw_seed=options.draw_seed
    )
    rows = noise_search.search(
        trials, _digits(options), options.out, resume=options.resume, accelerator=options.accelerator,
        processes=options.processes,
    )  # fmt: skip
    table, best = noise_search.table(rows), noise_search.ranking(rows)[0]
    (options.out / "search.md").write_text(table + "\n")
    print(f"\n{table}\n")
    print(f"results: {options.out / noise_search.RESULTS}, {options.out / 'search.md'}")
    relaxed = f" --alpha {best['alpha']:g} --num-filter-banks {best['num_filter_banks']}" if base.relaxed else ""
    print("best on the validation split, for gconv-ext train noise to test: ", end="")
    print(f"--model {base.model}{relaxed} --width {best['width']}")
    return 0
