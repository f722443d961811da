"""Measures what one call needs in memory beyond what was there before it, as the operating system counts it."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch

from .cases import LayerCase
from .contenders import Layer

ALGORITHMS = ["dense", "irrep", "conv2d"]
COLUMNS = ["case", "pass", "threads", "contender", "peak_mib"]

_PROCESS = Path("/proc/self")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_M_MMAP_THRESHOLD = -3  # of malloc.h


def missing_reason() -> str | None:
    """Why memory cannot be measured here, or None when it can."""
    try:
        _reset_peak()
    except OSError as error:
        return f"Linux resets a process's peak through /proc, and here: {error}"
    return None


def l2_cache() -> int:
    """Bytes of one core's second-level cache; 0 where the system does not say."""
    for cache in _CACHES.glob("index*"):
        if (cache / "level").read_text().strip() == "2":
            return int((cache / "size").read_text().strip().removesuffix("K")) << 10
    return 0


def peak(call: Callable[[], object]) -> int:
    """Bytes resident at the peak of one call, its result included, beyond those resident before it.  What the process
    has freed and not given back is taken again unseen: call it in a fresh one."""
    _reset_peak()
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _reset_peak() -> None:
    (_PROCESS / "clear_refs").write_text("5")


def _resident(name: str) -> int:
    """Bytes; VmRSS is what is resident now, VmHWM the most that ever was since the peak was reset."""
    status = dict(line.split(":", 1) for line in (_PROCESS / "status").read_text().splitlines())
    return int(status[name].split()[0]) << 10  # "… kB"


def measure(case: LayerCase, threads: list[int]) -> list[dict]:
    """One row a pass, number of threads and contender."""
    rows = []
    for pass_ in ("forward", "forward + backward"):
        for number in threads:
            for contender in [*ALGORITHMS, *(f"{name} channels_last" for name in ALGORITHMS)]:
                mib = in_fresh_process(_measure, case, pass_, number, contender) / 2**20
                row = [case.name, pass_, number, contender, round(mib, 2)]
                rows.append(dict(zip(COLUMNS, row)))
                print(f"{case.name:<32} {pass_:<18} threads {number:<2} {contender:<24} {mib:9.2f} MiB", flush=True)
    return rows


def in_fresh_process(function: Callable, *args):
    """The result of a function that a process with nothing but PyTorch and this package in its memory calls.

    Raises:
        EOFError: the process died; it has written why to stderr.
    """
    context = multiprocessing.get_context("forkserver")  # imports once, then forks
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(sender, function, *args))
    child.start()
    sender.close()
    result = receiver.recv()
    child.join()
    return result


def _send(sender, function: Callable, *args) -> None:
    # What is freed goes back to the system at once, so that a peak is what is in use, whatever was freed before.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 128 << 10)
    sender.send(function(*args))


def _measure(case: LayerCase, pass_: str, threads: int, contender: str) -> int:
    torch.set_num_threads(threads)

    def call(case: LayerCase) -> Callable[[], object]:
        layer = Layer(case)
        return (layer.forward() if pass_ == "forward" else layer.forward_backward())[contender]

    # Loads the libraries' code and starts threads on a map so small that what it leaves behind is little.
    call(case._replace(size=4, batch=2 * threads))()
    return peak(call(case))
