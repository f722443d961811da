"""Soft translation: the contraction against rendering the filters of all pixels, in time and memory.

python -m gconv_ext.bench.nonstationary [--threads 1 2] [--repeats 15] [--out bench/results/cpu]
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor

from gconv_ext import contraction, contraction_blocks, ops
from gconv_ext.nn import NonstationaryGroupConv2d
from gconv_ext.training.results import versions

from . import memory
from .timing import interleaved, keep_memory


class Case(NamedTuple):
    """A 3 x 3 layer with padding 1 and 32 hidden features; T(2) for one element, else SE(2), soft in both."""

    elements: int
    fields: int
    size: int
    batch: int

    @property
    def name(self) -> str:
        group = f"SE2 N={self.elements}" if self.elements > 1 else "T2"
        return f"{group} {self.fields}-{self.fields} {self.size}² x{self.batch}"


CASES = [Case(1, 32, 32, 16), Case(4, 16, 16, 16)]
PASSES = ["forward", "forward + backward"]


def rendered_bmm(x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Renders the filters of all pixels straight into what one batched matrix product takes: the quickest way with
    whole filters that PyTorch offers."""
    taps = contraction.windows(x, math.isqrt(hidden.shape[4]), stride, padding)
    rows = taps.permute(3, 4, 0, 2, 5, 6, 1).flatten(3).flatten(0, 1)  # [pixels, B, M k² C]
    filters = (hidden.flatten(0, -2) @ weight.permute(2, 1, 0).flatten(1)).view(*hidden.shape[:5], *weight.shape[1::-1])
    y = torch.matmul(rows[:, None], filters.flatten(3, 5).flatten(0, 1))  # [pixels, I, B, O]
    return y.unflatten(0, hidden.shape[:2]).permute(3, 4, 2, 0, 1)


def _compiled(*arguments) -> Tensor:
    return contraction.Contract.apply(*arguments, "contract")


def _blocks(x: Tensor, *arguments) -> Tensor:
    """The contraction in plain PyTorch, block by block."""
    with mock.patch.object(ops, "contract_fprop", lambda kernels, *arguments: contraction_blocks._fprop(*arguments)):
        return _compiled(x, *arguments)


CONTENDERS: dict[str, Callable[..., Tensor]] = {
    "contract": _compiled,
    "contract, PyTorch": _blocks,
    "filters, einsum": contraction.reference,
    "filters, bmm": rendered_bmm,
}
PEERS = ["filters, einsum", "filters, bmm"]


class _Call:
    """One layer, and a pass of it with one contender in the contraction's place; hidden features included."""

    def __init__(self, case: Case, pass_: str, contender: str):
        torch.manual_seed(0)
        group, soft = ("SE2", "both") if case.elements > 1 else ("T2", "translation")
        options = dict(padding=1, learn_frequency=True, learn_soft_frequency=True, bias=False)
        self.layer = NonstationaryGroupConv2d(case.fields, case.fields, 3, group, case.elements, soft, **options)
        self.x = torch.randn(case.batch, case.fields, case.elements, case.size, case.size, requires_grad=True)
        self.dy = torch.randn_like(self.x)
        self.pass_, self.contender, self.convolve = pass_, contender, CONTENDERS[contender]

    def result(self) -> Tensor:
        return self.convolve(self.x, self.layer.hidden_features(*self.x.shape[-2:]), self.layer.kernel.weight, 1, 1)

    def gradients(self) -> tuple[Tensor, ...]:
        """To x and every parameter, ω and ω' included."""
        inputs = [self.x, *self.layer.parameters()]
        if self.contender != "contract, PyTorch":
            return torch.autograd.grad(self.result(), inputs, self.dy)
        with mock.patch.object(
            ops, "contract_backward", lambda kernels, *arguments: contraction_blocks._backward(*arguments)
        ):
            return torch.autograd.grad(self.result(), inputs, self.dy)

    def __call__(self) -> object:
        if self.pass_ == "forward":
            with torch.no_grad():
                return self.result()
        return self.gradients()


def check(case: Case) -> None:
    """Every contender computes the same as the definition in float32, or nothing is timed."""
    want = None
    for name in ("filters, einsum", *CONTENDERS):
        call = _Call(case, PASSES[1], name)
        got = [call.result(), *call.gradients()]
        want = want or got
        for a, b in zip(got, want, strict=True):
            assert (a - b).abs().max() < 1e-3 * b.abs().max(), name


def _peak(case: Case, pass_: str, threads: int, contender: str) -> int:
    torch.set_num_threads(threads)
    _Call(case._replace(size=4, batch=2), pass_, contender)()  # loads the libraries' code and starts threads
    return memory.peak(_Call(case, pass_, contender))


def measure(cases: list[Case], threads: list[int], repeats: int) -> list[dict]:
    """One row a case, pass, number of threads, setting of malloc and contender."""
    peaks = {
        (case, pass_, number, name): memory.in_fresh_process(_peak, case, pass_, number, name) / 2**20
        for case in cases for pass_ in PASSES for number in threads for name in CONTENDERS
    }  # fmt: skip
    for case in cases:
        check(case)
    rows = []
    for malloc in ("default", "kept"):
        if malloc == "kept" and not keep_memory():
            break
        for case, pass_, number in ((case, pass_, number) for case in cases for pass_ in PASSES for number in threads):
            torch.set_num_threads(number)
            timings, _ = interleaved({name: _Call(case, pass_, name) for name in CONTENDERS}, PEERS, repeats, budget=60)
            for name, t in timings.items():
                times = [round(1e3 * seconds, 3) for seconds in (t.median, t.quartile1, t.quartile3)]
                row = {"case": case.name, "pass": pass_, "threads": number, "malloc": malloc, "contender": name}
                row |= dict(zip(["median_ms", "quartile1_ms", "quartile3_ms"], times))
                rows.append(row | {"peak_mib": round(peaks[case, pass_, number, name], 2), "rounds": t.rounds})
                print(rows[-1], flush=True)
    return rows


def table(rows: list[dict], about: dict) -> str:
    """The rows in Markdown."""
    lines = [
        f"{about['device']}, torch {about['torch']}, commit {str(about['commit'])[:12]}, float32; load of the machine "
        f"{about['load'][0]} before and {about['load'][1]} after (processes that wanted one of {about['cores']} "
        "cores, this one "
        "among them).", "",
        "The whole layer, from the Fourier features of every pixel to the result and, backward, the gradients "
        "to the input and "
        "every parameter, ω and ω' included. Milliseconds are the median of interleaved rounds, quartiles in "
        "brackets; MiB the "
        "peak of resident memory of one call in a fresh process beyond what was there before it, results "
        "included. `contract` "
        "is the compiled op, `contract, PyTorch` the same blocks in PyTorch; `filters` render the filter of "
        "every pixel, by "
        "einsum as the definition has it, or by bmm in the quickest order. The last two columns say how many "
        "times the compiled "
        "op is faster and leaner. By default malloc gives large tensors back to the system and takes them anew, "
        "page by page; "
        "told to keep them (`kept`), the filters cost no page faults after the first call.", "",
        "| case | pass | threads | malloc | contender | ms | MiB | faster than it | leaner than it |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    setting_of = operator.itemgetter("case", "pass", "threads", "malloc")
    for row in rows:
        setting = setting_of(row)
        ours = next(r for r in rows if setting_of(r) == setting and r["contender"] == "contract")
        time = f"{row['median_ms']:.1f} ({row['quartile1_ms']:.1f}–{row['quartile3_ms']:.1f})"
        peak = f"{row['peak_mib']:.1f}"
        times = (f"{row[key] / ours[key]:.1f}" if row is not ours else "" for key in ("median_ms", "peak_mib"))
        lines.append(f"| {' | '.join([*map(str, setting), row['contender'], time, peak, *times])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("bench/results/cpu"))
    arguments = parser.parse_args()
    if reason := memory.missing_reason():
        parser.error(reason)
    before = round(os.getloadavg()[0], 1)
    rows = measure(CASES, arguments.threads, arguments.repeats)
    about = versions() | {"load": [before, round(os.getloadavg()[0], 1)], "cores": len(os.sched_getaffinity(0))}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "nonstationary.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    (arguments.out / "nonstationary.md").write_text(table(rows, about))
    print(f"written: {arguments.out / 'nonstationary.json'}, nonstationary.md")


if __name__ == "__main__":
    main()
