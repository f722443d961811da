"""The Markdown report of a benchmark on a GPU."""

from __future__ import annotations

from ..resources import Kernel
from ..resources import table as compiled_table
from .cases import CLASSES, GOALS, NETWORK_GOAL, NETWORKS, PASSES, Ceilings

_MEANING = """\
µs: median of the interleaved rounds of CUDA-graph replays, quartiles in brackets; inputs take turns, so that none is found in
the second-level cache. eager: the same calls launched from Python. speed: time of the best peer over the contender's, round by
round; above 1 is faster than that peer. Peers convolve with filters that were expanded beforehand (conv2d: cuDNN's fastest
kernel), and of a network dense is one too. TFLOP/s: of the multiplications that the algorithm makes, and of those that dense
would make. GB/s: x read once and y written once, backward dy and x read once more and dx written. floor: the time that these
bytes or the fewest multiplications take at least, over the time taken. Every contender was checked against the float64
reference before it was timed."""
_HEAD = """\
| case | pass | precision | contender | µs | eager | speed | TFLOP/s | dense TFLOP/s | GB/s | floor |
|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|"""


def table(rows: list[dict], about: dict | None, ceilings: Ceilings | None, compiled: list[Kernel]) -> str:
    """Of run.measure's rows; `about` and `ceilings` are None before a first measurement, `compiled` are the CUDA kernels."""
    parts = [_about(about, ceilings) if about else "Nothing was measured so far: no GPU was at hand."]
    parts += [_MEANING.replace("\n", " "), "\n".join([_HEAD, *map(_line, filter(_is_shown, rows))])]
    parts += ["## Goals", _goals(rows)]
    parts += ["## Losses", "Where the best peer was faster than all of ours:", "\n".join(losses(rows)) or "nowhere measured."]
    if failed := [f"* {_setting(row)}, {row['contender']}: {row['failed']}" for row in rows if "failed" in row]:
        parts += ["## Failures", "\n".join(failed)]
    left_out = dict.fromkeys((row["contender"], row["not_measured"]) for row in rows if "not_measured" in row and row["contender"])
    if left_out:
        parts += ["## Contenders that were not timed", "\n".join(f"* {name}: {why}" for name, why in left_out)]
    if lines := _kernels(rows):
        parts += ["## Triton kernels", "\n".join(lines)]
    if compiled:
        parts += ["## CUDA kernels, as the compiler reports them", compiled_table(compiled)]
    return "\n\n".join(parts) + "\n"


def _about(about: dict, ceilings: Ceilings) -> str:
    rates = ", ".join(f"{rate / 1e12:.0f} TFLOP/s in {dtype}" for dtype, rate in ceilings.rates.items())
    return (
        f"{about['gpu']}, driver {about['driver']}, CUDA {about['cuda']}, cuDNN {about['cudnn']}, torch {about['torch']}, "
        f"Triton {about['triton']}, gconv_ext {about['gconv_ext']} at commit {(about['commit'] or 'unknown')[:12]}"
        f"{'+' * str(about['commit']).endswith('+')}, {about['date']}. Measured here: a large copy at "
        f"{ceilings.bandwidth / 1e9:.0f} GB/s; large matrix products at {rates}."
    )


def _setting(row: dict) -> str:
    return f"{row['case']}, {row['pass']}, {row['dtype']}"


def _is_shown(row: dict) -> bool:
    return "us" in row or "failed" in row or not row["contender"]


def _line(row: dict) -> str:
    start = f"| {row['case']} | {row['pass']} | {row['dtype']} | {row['contender']} |"
    if "not_measured" in row:
        return f"{start} not measured: {row['not_measured']} | | | | | | |"
    if "failed" in row:
        return f"{start} failed | | | | | | |"
    us = f"{row['us']:.1f} ({row['us_quartile1']:.1f}–{row['us_quartile3']:.1f})"
    speed = f"{row['speed']:.2f} ({row['speed_quartile1']:.2f}–{row['speed_quartile3']:.2f})"
    eager = f"{row['eager_us']:.1f}" if "eager_us" in row else ""
    rates = ["", "", "", ""]
    if "tflops" in row:
        rates = [f"{row['tflops']:.1f}", f"{row['dense_tflops']:.1f}", f"{row['gb_per_s']:.0f}", f"{row['floor']:.0%}"]
    return f"{start} {' | '.join([us, eager, speed, *rates])} |"


def fastest(rows: list[dict]) -> dict[tuple[str, str, str], dict]:
    """Our fastest row of each setting that was measured."""
    found = {}
    for row in rows:
        if "us" in row and not row["is_peer"]:
            setting = (row["case"], row["pass"], row["dtype"])
            found[setting] = min(row, found.get(setting, row), key=lambda row: row["us"])
    return found


def losses(rows: list[dict]) -> list[str]:
    """A line for each setting in which none of ours was as fast as the best peer."""
    return [
        f"* {_setting(row)}: {row['contender']} had {row['speed']:.2f} of the speed of {row['peer']}"
        for row in fastest(rows).values()
        if row["speed"] < 1
    ]


def _goals(rows: list[dict]) -> str:
    """The speeds of our fastest contenders, by class of layers, beside what they shall be."""
    lines = ["| layers | precision | pass | goal | slowest | fastest | measured |", "|---|---|---|---:|---:|---:|---:|"]
    found = fastest(rows)

    def line(name: str, cases: list[str], dtype: str, pass_: str, goal: float) -> str:
        speeds = [found[case, pass_, dtype]["speed"] for case in cases if (case, pass_, dtype) in found]
        cells = f"{min(speeds):.2f} | {max(speeds):.2f}" if speeds else "not measured | not measured"
        return f"| {name} | {dtype} | {pass_} | {goal} | {cells} | {len(speeds)} of {len(cases)} |"

    for name, goals in GOALS.items():
        cases = [case.name for case in CLASSES[name]]
        lines += [line(name, cases, dtype, *pair) for dtype, pair_of in goals.items() for pair in zip(PASSES, pair_of)]
    lines.append(line("networks", list(NETWORKS), "bfloat16", "training step", NETWORK_GOAL))
    return "\n".join(lines)


def _kernels(rows: list[dict]) -> list[str]:
    """A line for each Triton kernel of each contender; their occupancy is what registers and shared memory allow."""
    lines = [
        f"| {row['case']} | {row['pass']} | {row['dtype']} | {row['contender']} | {k['kernel']} | {k['registers']} | {k['spills']} | "
        f"{k['shared_bytes']} | {k['occupancy']:.0%} |"
        for row in rows
        for k in row.get("kernels", [])
    ]
    head = ["| case | pass | precision | contender | kernel | registers | spills | shared memory | occupancy |"]
    return lines and [*head, "|---|---|---|---|---|---:|---:|---:|---:|", *lines]
