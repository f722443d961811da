"""Interleaved timing: every round runs each contender once, so that a drifting machine treats them alike."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Timing(NamedTuple):
    """Seconds of one contender, and its ratio to the peer, round by round.

    Attributes:
        median, quartile1, quartile3: seconds.
        ratio, ratio1, ratio3: seconds of this contender over seconds of the peer in the same round; median and quartiles.
        rounds: how many.
    """

    median: float
    quartile1: float
    quartile3: float
    ratio: float
    ratio1: float
    ratio3: float
    rounds: int


LEAST_ROUNDS = 5

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def keep_memory() -> bool:
    """Tells malloc to keep what is freed, for the rest of the process, and says whether it could (glibc's can).

    Else whether a large result's pages go back to the system and are faulted in again, which can take half as long as the
    layer, depends on what was freed before: on the other contenders, not on the one that is timed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def interleaved(
    contenders: dict[str, Callable[[], object]], peers: list[str], rounds: int, budget: float = 10.0
) -> tuple[dict[str, Timing], str]:
    """Times every contender `rounds` times after two rounds of warm-up, or less often, but at least LEAST_ROUNDS times, when
    `budget` seconds are over.

    Returns:
        ({name: Timing}, the fastest of `peers` by median, which the ratios refer to).
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    for round_ in range(-2, rounds):
        if round_ >= LEAST_ROUNDS and time.perf_counter() - began > budget:
            break
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            contenders[name]()
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - start)
    return summary(seconds, peers)


def summary(seconds: dict[str, list[float]], peers: list[str]) -> tuple[dict[str, Timing], str]:
    """What interleaved returns, from the seconds of each contender, round by round."""
    best = min(peers, key=lambda name: np.median(seconds[name]))

    def timing(name: str) -> Timing:
        quartiles = np.quantile(seconds[name], [0.5, 0.25, 0.75])
        ratios = np.quantile(np.divide(seconds[name], seconds[best]), [0.5, 0.25, 0.75])
        return Timing(*map(float, (*quartiles, *ratios)), len(seconds[name]))

    return {name: timing(name) for name in seconds}, best
