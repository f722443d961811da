"""gconv-ext: the command line."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

from . import __version__, ops, triton_kernels
from .algorithms import ALGORITHMS, support
from .checks import RELAX_ON
from .errors import InputError

# Small batches: what a short run lacks is steps.
DEMO = {"epochs": 10, "batch_size": 16}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, 1 for a no, 2 for what the user can mend, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (InputError, OSError) as error:
        print(f"gconv-ext: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("gconv-ext: interrupted" + (f"; {interrupt}" if str(interrupt) else ""), file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gconv-ext", description="Group-equivariant convolutions for PyTorch.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="what was built, and the reason for each back end that is missing")
    info.set_defaults(command=_info)

    exact = commands.add_parser(
        "exactness",
        help="tell, layer by layer, whether a network is exactly equivariant at an input size",
        description="Paper 3: tells, layer by layer, whether a network is exactly equivariant at an input size, and "
        "the nearest sizes where it is. Exit status 0 when exact, 1 when not.",
    )
    exact.set_defaults(command=_exactness)
    exact.add_argument("model", metavar="MODEL", help="a network by the name that create_model knows it by")
    exact.add_argument("--size", type=int, nargs="+", required=True, metavar="N", help="height = width, or both")

    train = commands.add_parser("train", help="train the networks of an experiment")
    experiments = train.add_subparsers(required=True, metavar="EXPERIMENT")
    noise = experiments.add_parser(
        "noise",
        help="paper 1: plain, p4 and relaxed p4 network on noisy rotated digits",
        description="Paper 1: plain, p4 and relaxed p4 networks on noisy rotated digits. The defaults are the paper's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    noise.set_defaults(command=_train_noise)
    what = noise.add_argument_group("what to train")
    what.add_argument("--model", choices=["plain", "p4", "relaxed", "all"], default="all")
    what.add_argument("--noise", choices=["none", "iso", "aniso"], default="aniso")
    what.add_argument("--sigma", type=float, default=0.2, help="root of the mean variance of the noise, in grey values")
    what.add_argument("--epochs", type=int, default=20)
    what.add_argument("--batch-size", type=int, default=64)
    short = ", ".join(f"{name} {value}" for name, value in DEMO.items()).replace("_", " ")
    what.add_argument("--demo", action="store_true", help=f"a run of minutes: {short}, in place of the two options above")
    what.add_argument("--lr", type=float, default=0.002, help="learning rate of Adam")
    what.add_argument("--alpha", type=float, default=1e-4, help="factor of the penalty of Eq. 7 (relaxed)")
    what.add_argument("--num-filter-banks", type=int, default=3, metavar="L", help="filter banks a layer (relaxed)")
    what.add_argument("--relax-on", choices=RELAX_ON, default="output", help="element that indexes the weights (relaxed)")
    what.add_argument("--seed", type=int, default=0)
    what.add_argument("--algorithm", choices=ALGORITHMS, default="auto")
    data = noise.add_argument_group("data")
    data.add_argument("--data-dir", type=Path, help="folder with the idx files; without it, the digits that ship with the package")
    data.add_argument("--dataset", choices=["mnist", "fashion"], default="mnist")
    data.add_argument("--download", action="store_true", help="fetch the dataset into --data-dir with torchvision first")
    data.add_argument("--train-digits", type=int, metavar="N", help="use only the first N training digits")
    where = noise.add_argument_group("where and how")
    where.add_argument("--out", type=Path, required=True, help="folder for results, checkpoints and pictures")
    where.add_argument("--resume", action="store_true", help="go on with the runs found in --out")
    where.add_argument("--accelerator", default="auto", help="as pytorch-lightning names them: auto, cpu, gpu, …")
    where.add_argument("--processes", type=int, default=1, help="processes that share each batch (DDP)")
    where.add_argument("--precision", default="32-true", help="as pytorch-lightning names them: 32-true, bf16-mixed, …")

    bench = commands.add_parser(
        "bench",
        help="time every algorithm and F.conv2d on the layers of the papers",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    bench.set_defaults(command=_bench)
    bench.add_argument("--out", type=Path, required=True, help="folder for the table, the CSV file and the plot")
    bench.add_argument("--only", metavar="TEXT", default="", help="only the cases whose name contains TEXT")
    bench.add_argument("--repeats", type=int, default=21, help="timed rounds; each round runs every contender once")
    bench.add_argument(
        "--threads", type=int, nargs="+", metavar="N", help="numbers of threads, timed in turn; PyTorch's own number without"
    )
    bench.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda times another table, for GPUs")
    gpu = bench.add_argument_group("with --device cuda")
    gpu.add_argument(
        "--dtype", nargs="+", choices=["bfloat16", "float32", "tf32", "float16"], help="precisions; all but float16 without"
    )
    gpu.add_argument("--budget", type=float, metavar="SECONDS", help="stop after these and write the rest down as not measured")
    return parser


def _info(options) -> int:
    import torch

    print(f"gconv_ext {__version__}, torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}")
    reason = ops.missing_reason()
    print("compiled ops: " + ("available" if reason is None else f"missing: {reason}"))
    built = ops.build_info()
    cuda = built.pop("cuda", "not built")
    for name, value in built.items():
        print(f"  {name}: {value}")
    print(f"CUDA kernels: {cuda}")
    why_not = triton_kernels.missing_reason()
    print("Triton kernels: " + ("available" if why_not is None else f"missing: {why_not}"))
    print("algorithms:")
    print(f"  CPU: {_algorithms_on('cpu')}")
    print(f"  GPU: {_algorithms_on('cuda') if torch.cuda.is_available() else 'PyTorch sees none'}")
    return 0


def _algorithms_on(device: str) -> str:
    import torch

    weight = torch.empty(0, device=device)
    return ", ".join(name for name in ALGORITHMS[1:] if support(name, weight).why_not is None)


def _exactness(options) -> int:
    from .exactness import exactness
    from .models import create_model, list_models

    if options.model not in list_models():
        raise InputError(f"unknown model {options.model!r}; expected one of {', '.join(list_models())}")
    size = options.size[0] if len(options.size) == 1 else tuple(options.size)
    try:
        report = exactness(create_model(options.model), size)
    except ValueError as error:
        raise InputError(f"--size: {error}") from error
    print(report)
    return 0 if report.exact else 1


def _needs_train_extra() -> None:
    try:
        import matplotlib  # noqa: F401
        import pytorch_lightning  # noqa: F401
    except ImportError as error:
        raise InputError(f"this command needs the training extra ({error}): pip install 'gconv_ext[train]'") from error


def _train_noise(options) -> int:
    _needs_train_extra()
    from .data import load_digits
    from .experiments import noise
    from .experiments.noise_figures import draw_all
    from .training.results import read_rows

    if options.processes < 1:
        raise InputError(f"--processes must be at least 1, got {options.processes}")
    shared = {name: getattr(options, name) for name in (
        "noise", "sigma", "epochs", "batch_size", "lr", "alpha", "num_filter_banks", "relax_on", "seed", "train_digits",
        "algorithm", "precision",
    )}  # fmt: skip
    if options.demo:
        shared |= DEMO
    models = list(noise.MODELS) if options.model == "all" else [options.model]
    configs = [noise.NoiseConfig(model=model, **shared) for model in models]
    digits = load_digits(options.data_dir, options.dataset, options.download)
    sizes = ", ".join(f"{len(labels):,} {split}" for split, (_, labels) in digits.splits.items())
    print(f"data: {digits.origin} ({sizes})", flush=True)
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
    print("equivariance error: max |f(g·x) − f(x)| / max |f(x)| of the logits over the quarter turns of noisy test digits")
    print("speed: a training step on the reference path over one on the run's own path, median of interleaved ratios")
    print(f"results: {options.out / 'results.jsonl'}, {options.out / 'table.md'}")
    print("pictures: " + ", ".join(str(path) for path in pictures))
    return 0


def _bench(options) -> int:
    if options.repeats < 1:
        raise InputError(f"--repeats must be at least 1, got {options.repeats}")
    if options.device == "cuda":
        from .bench.gpu.run import run as run_on_gpu

        if options.threads:
            raise InputError("--threads needs --device cpu")
        return run_on_gpu(
            options.out, only=options.only, repeats=options.repeats, dtypes=options.dtype, budget=options.budget
        )  # fmt: skip
    if options.dtype or options.budget is not None:
        raise InputError("--dtype and --budget need --device cuda")
    _needs_train_extra()
    from .bench.run import run

    run(options.out, only=options.only, repeats=options.repeats, threads=options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
