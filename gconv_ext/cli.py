"""gconv-ext: the command line."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

from . import __version__, cli_noise, cli_reproduce, cli_sixes, ops, triton_kernels
from .algorithms import ALGORITHMS, support
from .errors import InputError


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
    cli_noise.add_train(experiments)
    cli_sixes.add_train(experiments)

    search = commands.add_parser("search", help="search the hyper-parameters of an experiment's networks")
    cli_noise.add_search(search.add_subparsers(required=True, metavar="EXPERIMENT"))

    cli_reproduce.add_commands(commands)

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
    cli_noise.needs_train_extra()
    from .bench.run import run

    run(options.out, only=options.only, repeats=options.repeats, threads=options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
