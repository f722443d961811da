"""Times on a GPU: CUDA events around recorded calls, interleaved; what the GPU can do; what its kernels take."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from ..timing import LEAST_ROUNDS, Timing, summary
from .cases import DTYPES, Ceilings, occupancy
from .contenders import precision

_LEAST_CALLS = 20  # in one record of a small layer or a network, so that its start does not count
_AHEAD = 2_000_000  # cycles that the GPU waits while the processor queues a round


class Record(NamedTuple):
    """Calls that are timed together."""

    run: Callable[[], object]
    calls: int


def eager(call: Callable[[int], object], copies: int, small: bool) -> Record:
    """Every copy in turn, a small layer's so often that they last."""
    calls = copies * (math.ceil(_LEAST_CALLS / copies) if small else 1)
    return Record(lambda: [call(number % copies) for number in range(calls)], calls)


def graph(call: Callable[[int], object], copies: int, small: bool) -> Record:
    """The same as a CUDA graph, in which neither launches nor Python count.  The list of results keeps them apart in memory, so
    that no call writes where another has just written."""
    several = eager(call, copies, small)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, and lets cuDNN choose
            call(0)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        several.run()
    return Record(graph.replay, several.calls)


def interleaved(
    records: dict[str, Record], peers: list[str], rounds: int, *, queued: bool = True, budget: float = 2.0
) -> tuple[dict[str, Timing], str]:
    """As timing.interleaved of the CPU, for one call of each record.  When `queued`, a round is queued before it begins, and
    the processor's time does not count; else the GPU waits for each record's launches."""
    names = list(records)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    for round_ in range(-1, rounds):
        if round_ >= LEAST_ROUNDS and time.perf_counter() - began > budget:
            break
        events = {name: [torch.cuda.Event(enable_timing=True) for _ in range(2)] for name in names}
        turn = round_ % len(names)
        if queued:
            torch.cuda._sleep(_AHEAD)
        for name in names[turn:] + names[:turn]:
            if not queued:
                torch.cuda.synchronize()
            start, end = events[name]
            start.record()
            records[name].run()
            end.record()
        torch.cuda.synchronize()
        if round_ >= 0:
            for name, (start, end) in events.items():
                seconds[name].append(1e-3 * start.elapsed_time(end) / records[name].calls)
    return summary(seconds, peers)


def ceilings(dtypes: list[str]) -> Ceilings:
    """Measured on random numbers: a copy of 2 GiB, and products of 8192 x 8192 matrices."""

    def seconds(call: Callable[[int], object]) -> float:
        timings, name = interleaved({"": graph(call, 1, False)}, [""], 11)
        return timings[name].median

    source = torch.randn(2**29, device="cuda")
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / seconds(lambda copy: target.copy_(source))
    rates = {}
    for dtype in dtypes:
        with precision(dtype):
            a, b = torch.randn(2, 8192, 8192, device="cuda").to(DTYPES[dtype])
            rates[dtype] = 2 * 8192**3 / seconds(lambda copy: a @ b)
    return Ceilings(bandwidth, rates)


@contextlib.contextmanager
def launches() -> Iterator[list]:
    """The list of the Triton kernels of ours that are launched meanwhile."""
    kernels = []
    try:
        from triton.runtime.jit import JITFunction
    except ImportError:
        yield kernels
        return
    run = JITFunction.run

    def launch(self, *args, **options):
        kernels.append(run(self, *args, **options))
        return kernels[-1]

    JITFunction.run = launch
    try:
        yield kernels
    finally:
        JITFunction.run = run


def resources(kernels: list, gpu) -> list[dict]:
    """Of each compiled Triton kernel once; `gpu` as occupancy takes it."""
    rows = []
    for kernel in {kernel.hash: kernel for kernel in kernels}.values():
        shared, warps = kernel.metadata.shared, kernel.metadata.num_warps
        rows.append({
            "kernel": kernel.name, "registers": kernel.n_regs, "spills": kernel.n_spills, "shared_bytes": shared,
            "warps": warps, "occupancy": round(occupancy(gpu, kernel.n_regs, shared, warps), 3),
        })  # fmt: skip
    return rows
