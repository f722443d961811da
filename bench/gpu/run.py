"""Runs the benchmark on a GPU: checks, times, and writes JSON and a Markdown table."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import subprocess
import time
from pathlib import Path

import torch

from gconv_ext import __version__
from gconv_ext.errors import InputError
from gconv_ext.training.results import commit

from .. import resources
from . import contenders, timing
from .cases import DTYPES, Ceilings, Setting, rates, settings
from .report import table

DEFAULT_DTYPES = ["bfloat16", "float32", "tf32"]


def run(out: Path, *, only: str = "", repeats: int = 21, dtypes: list[str] | None = None, budget: float | None = None) -> int:
    """Times every setting whose name contains `only` until `budget` seconds are over, and writes out/bench.json and bench.md
    after each.  The report holds out/ptxas.log, where that is the compiler's report on the CUDA kernels.

    Returns:
        The exit status: 1 where a contender failed or computed something else than the reference.

    Raises:
        InputError: no such setting, or no GPU.
    """
    began = time.monotonic()
    todo = settings(dtypes or DEFAULT_DTYPES, only)
    if not todo:
        names = dict.fromkeys(setting.name for setting in settings(DEFAULT_DTYPES))
        raise InputError(f"no case contains {only!r}; the cases are: {'; '.join(names)}")
    if not torch.cuda.is_available():
        raise InputError("--device cuda needs a GPU, and PyTorch sees none")
    about, ceilings = versions(), timing.ceilings(dtypes or DEFAULT_DTYPES)
    rows = []
    for number, setting in enumerate(todo):
        if budget is not None and time.monotonic() - began > budget:
            rows += not_measured(todo[number:], "out of time")
            break
        rows += measure(setting, repeats, ceilings)
        write(out, rows + not_measured(todo[number + 1 :], "the run was stopped"), about, ceilings)
    write(out, rows, about, ceilings)
    print(f"written: {out / 'bench.json'}, bench.md")
    return int(any(row.get("failed") for row in rows))


def versions() -> dict:
    """Of everything that a time depends on."""
    gpu = torch.cuda.get_device_properties()
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    return {
        "gpu": gpu.name, "multiprocessors": gpu.multi_processor_count, "l2_bytes": gpu.L2_cache_size, "driver": driver,
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "torch": torch.__version__,
        "triton": _version_of("triton"), "gconv_ext": __version__, "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def not_measured(settings: list[Setting], reason: str) -> list[dict]:
    """One row each."""
    return [_row(setting, "", not_measured=reason) for setting in settings]


def _row(setting: Setting, contender: str, **columns) -> dict:
    row = {"case": setting.name, "pass": setting.pass_, "dtype": setting.dtype, "contender": contender}
    return row | columns


def write(out: Path, rows: list[dict], about: dict | None = None, ceilings: Ceilings | None = None) -> None:
    """out/bench.json and out/bench.md; without `about`, of a table that waits for a GPU."""
    out.mkdir(parents=True, exist_ok=True)
    report = out / "ptxas.log"
    compiled = resources.parse(report.read_text()) if report.exists() else []
    measured = {"about": about, "ceilings": ceilings and ceilings._asdict(), "rows": rows}
    (out / "bench.json").write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n")
    (out / "bench.md").write_text(table(rows, about, ceilings, compiled))


def measure(setting: Setting, repeats: int, ceilings: Ceilings, device: str = "cuda") -> list[dict]:
    """The rows of one setting: checks each contender, times them all, our fastest and the fastest peer once more compiled, and
    small ones also without CUDA graphs."""
    torch._dynamo.reset()  # which counts how often a function was compiled
    gpu = torch.cuda.get_device_properties() if device == "cuda" else None
    is_network = isinstance(setting.case, str)
    calls, records, kernels, failed = {}, {}, {}, {}

    def prepare(name: str, contender) -> None:
        try:
            with timing.launches() as kernels[name]:
                error = contenders.wrong(contender.results(setting.pass_), made.bounds(name))
            if error:
                raise AssertionError(error)
            calls[name] = contender.call(setting.pass_)
            records[name] = timing.graph(calls[name], made.copies, setting.is_small)
        except Exception as error:  # whatever it is, the others are still timed, and the exit status tells
            failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"

    with contenders.precision(setting.dtype):
        if is_network:
            made = contenders.network(setting.case, device)
        else:
            l2_bytes = gpu.L2_cache_size if gpu else 0
            made = contenders.layer(setting.case, setting.pass_, DTYPES[setting.dtype], device, l2_bytes)
        for name, contender in made.eager.items():
            prepare(name, contender)
        peers = [name for name in records if contenders.is_peer(name, is_network)]
        timings, best = timing.interleaved(records, peers, 3)
        fastest = [best, *sorted(records.keys() - set(peers), key=lambda name: timings[name].median)[:1]]
        for name in fastest:
            prepare(f"compiled {name}", made.eager[name].compiled())
        peers = [name for name in records if contenders.is_peer(name, is_network)]
        timings, best = timing.interleaved(records, peers, repeats)
        launched = {}
        if setting.is_small:
            eager = {name: timing.eager(calls[name], made.copies, True) for name in records}
            launched, _ = timing.interleaved(eager, peers, repeats, queued=False)

    rows = [_row(setting, name, failed=why) for name, why in failed.items()]
    for name, t in timings.items():
        us = [round(1e6 * seconds, 3) for seconds in (t.median, t.quartile1, t.quartile3)]
        speeds = [round(1 / ratio, 4) for ratio in (t.ratio, t.ratio3, t.ratio1)]
        row = dict(zip(("us", "us_quartile1", "us_quartile3", "speed", "speed_quartile1", "speed_quartile3"), us + speeds))
        row |= {"peer": best, "is_peer": name in peers, "rounds": t.rounds}
        if not is_network:
            row |= {key: float(f"{rate:.4g}") for key, rate in rates(setting, name, t.median, ceilings)._asdict().items()}
        if name in launched:
            row["eager_us"] = round(1e6 * launched[name].median, 3)
        rows.append(_row(setting, name, **row, kernels=timing.resources(kernels[name], gpu)))
    rows += [_row(setting, name, not_measured=why) for name, why in made.left_out.items()]
    for row in rows:
        told = f"{row['us']:10.2f} us   {row['speed']:6.3f} of {best}" if "us" in row else row.get("failed") or row["not_measured"]
        print(f"{setting.name:<34} {setting.pass_:<18} {setting.dtype:<9} {row['contender']:<28} {told}", flush=True)
    return rows
