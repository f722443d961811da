"""Runs the benchmark: checks, times, and writes a CSV file, a Markdown table and a plot."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import torch

from gconv_ext.errors import InputError
from gconv_ext.training.results import versions

from . import memory
from .cases import LAYERS, MEMORY, NETWORKS, LayerCase
from .contenders import PEERS, Layer, check, training_steps
from .report import memory_table, plot, table
from .timing import interleaved, keep_memory

COLUMNS = [
    "case", "pass", "threads", "contender", "median_ms", "quartile1_ms", "quartile3_ms", "ratio", "ratio_quartile1",
    "ratio_quartile3", "peer", "rounds", "auto",
]  # fmt: skip


def run(out: Path, *, only: str = "", repeats: int = 21, threads: list[int] | None = None) -> None:
    """Times every case whose name contains `only`, on each number of threads in turn (PyTorch's own number without), measures
    the peak of memory of those in MEMORY, and writes out/bench.csv, memory.csv, bench.json, bench.md and bench.png.

    Raises:
        InputError: no such case, a number of threads below 1 or named twice, or `out` already holds a benchmark.
        AssertionError: a contender computes something else than the reference; nothing is timed then.
    """
    layers = [case for case in LAYERS if only in case.name]
    networks = [name for name in NETWORKS if only in name]
    if not layers and not networks:
        names = [case.name for case in LAYERS] + NETWORKS
        raise InputError(f"no case contains {only!r}; the cases are: {'; '.join(names)}")
    threads = threads or [torch.get_num_threads()]
    if min(threads) < 1 or len(set(threads)) < len(threads):
        raise InputError(f"--threads must be different numbers of at least 1, got {' '.join(map(str, threads))}")
    if (out / "bench.csv").exists():
        raise InputError(f"{out / 'bench.csv'} is there already; give another --out")
    out.mkdir(parents=True, exist_ok=True)

    measured = [case for case in MEMORY if only in case.name]
    reason = memory.missing_reason()
    peaks = [] if reason else [row for case in measured for row in memory.measure(case, threads)]
    kept = keep_memory()  # after memory was measured
    before = torch.get_num_threads()
    try:
        rows = _rows(layers, networks, threads, repeats)
    finally:
        torch.set_num_threads(before)

    _write(out / "bench.csv", COLUMNS, rows)
    if peaks:
        _write(out / "memory.csv", memory.COLUMNS, peaks)
    about = versions() | {"dtype": "float32", "threads": threads, "l2_cache": memory.l2_cache(), "memory_kept": kept}
    (out / "bench.json").write_text(json.dumps(about, indent=1) + "\n")
    text = table(rows, about)
    if measured:
        text += "\n" + (f"Memory was not measured: {reason}.\n" if reason else memory_table(peaks, about))
    (out / "bench.md").write_text(text)
    plot(rows, about, out / "bench.png")
    print(f"written: {out / 'bench.csv'}, {'memory.csv, ' * bool(peaks)}bench.json, bench.md, bench.png")


def _write(path: Path, columns: list[str], rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _rows(layers: list[LayerCase], networks: list[str], threads: list[int], repeats: int) -> list[dict]:
    """The numbers of threads of one case and pass are timed right after each other, so that a drifting machine treats them
    alike."""
    rows = []
    for case in layers:
        check(case)
        layer = Layer(case)
        for name, contenders in (("forward", layer.forward()), ("forward + backward", layer.forward_backward())):
            for number in threads:
                torch.set_num_threads(number)
                rows += _time(case.name, name, contenders, PEERS, repeats, layer.auto(name != "forward"))
    for name in networks:
        contenders = training_steps(name)
        for number in threads:
            torch.set_num_threads(number)
            rows += _time(name, "training step", contenders, ["conv2d channels_last"], repeats)
    return rows


def _time(case: str, pass_: str, contenders: dict, peers: list[str], repeats: int, auto: list[str] = ()) -> list[dict]:
    """One row a contender; those named in `auto` are marked as what "auto" takes."""
    threads = torch.get_num_threads()
    timings, best = interleaved(contenders, peers, repeats)
    rows = []
    for name, t in timings.items():
        milliseconds = [round(1e3 * value, 4) for value in (t.median, t.quartile1, t.quartile3)]
        ratios = [round(value, 4) for value in (t.ratio, t.ratio1, t.ratio3)]
        taken = "auto" if name in auto else ""
        rows.append(dict(zip(COLUMNS, [case, pass_, threads, name, *milliseconds, *ratios, best, t.rounds, taken])))
        where = f"{case:<32} {pass_:<18} threads {threads:<2}"
        print(f"{where} {name:<24} {milliseconds[0]:9.3f} ms   {ratios[0]:6.3f} x {best}", flush=True)
    return rows
