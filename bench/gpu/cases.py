"""What is timed on a GPU, in the order of importance, and how much work it is."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import NamedTuple

import torch

from gconv_ext.groups import as_group
from gconv_ext.irrep_tables import fourier_table

from ..cases import LayerCase

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "tf32": torch.float32, "float16": torch.float16}
PASSES = ("forward", "forward + backward")


def _wide(group: str, *fields: int) -> list[LayerCase]:
    return [LayerCase(group, n, n, size, 64) for n in fields for size in (32, 56)]


# By class, in the order of importance.
CLASSES = {
    "p4, 32–128 fields": _wide("C4", 64, 128, 32),
    "p4m, 16–64 fields": _wide("D4", 32, 64, 16),
    "the papers' small layers": [
        LayerCase("C4", 10, 10, 28, 64),
        LayerCase("C4", 6, 6, 28, 64, banks=3),
        LayerCase("D4", 10, 10, 28, 64),
        LayerCase("C4", 1, 10, 28, 64, lifting=True),
        LayerCase("C4", 16, 16, 28, 64),
        LayerCase("D4", 16, 16, 28, 64),
        LayerCase("C4", 6, 6, 28, 64, banks=3, relax_on="input"),
        LayerCase("C4", 1, 6, 28, 64, lifting=True, banks=3),
        LayerCase("C4", 5, 5, 28, 64),
        LayerCase("D4", 5, 5, 28, 64),
    ],
}
# How many times as fast as the best peer our fastest contender shall be, forward and with the backward pass.
GOALS = {
    "p4, 32–128 fields": {"bfloat16": (1.6, 1.5), "float32": (1.8, 1.8), "tf32": (1.5, 1.5)},
    "p4m, 16–64 fields": {"bfloat16": (2.8, 2.5), "float32": (3.0, 3.0), "tf32": (2.5, 2.5)},
    "the papers' small layers": {"bfloat16": (2.0, 2.0), "float32": (2.0, 2.0)},
}
NETWORK_GOAL = 1.5
# One training step each, bfloat16 autocast, batch 64: (H = W of the images).
NETWORKS = {"noise_p4_cnn": 28, "noise_relaxed_p4_cnn": 28, "p4_resnet18": 32, "p4m_resnet18": 32}


class Setting(NamedTuple):
    """One block of the table, whose contenders are timed together.

    Attributes:
        case: a layer, or the name of a network.
        pass_: of PASSES, or "training step".
        dtype: a key of DTYPES.
    """

    case: LayerCase | str
    pass_: str
    dtype: str

    @property
    def name(self) -> str:
        return self.case if isinstance(self.case, str) else self.case.name

    @property
    def is_small(self) -> bool:
        """Whether launches may count as much as kernels."""
        return isinstance(self.case, str) or self.case in CLASSES["the papers' small layers"]


def settings(dtypes: list[str], only: str = "") -> list[Setting]:
    """All those whose name contains `only`: a layer of each class in every precision and pass, the networks, then the rest,
    for which the classes take turns."""
    turns = [case for turn in zip_longest(*CLASSES.values()) for case in turn if case]
    first, rest = turns[: len(CLASSES)], turns[len(CLASSES) :]
    columns = [(pass_, dtype) for dtype in dtypes for pass_ in PASSES]
    found = [Setting(case, *column) for column in columns for case in first]
    if "bfloat16" in dtypes:
        found += [Setting(name, "training step", "bfloat16") for name in NETWORKS]
    found += [Setting(case, *column) for column in columns for case in rest]
    return [setting for setting in found if only in setting.name]


class Work(NamedTuple):
    """Of a layer in one pass.

    Attributes:
        bytes: x read once and y written once; backward, dy and x read once more and dx written.
        dense: multiplications of the convolution with the expanded filter.
        irrep: real ones of the irrep algorithm, L times a strict layer's with L filter banks.
    """

    bytes: int
    dense: int
    irrep: int


def work(case: LayerCase, pass_: str, dtype: torch.dtype) -> Work:
    group = as_group(case.group)
    pixels, taps, orbits = case.batch * case.size**2, 9, len(group.tap_orbits(3)) if case.lifting else 9
    read, written = case.in_fields * (1 if case.lifting else group.order), case.out_fields * group.order
    products = len(fourier_table(case.group).products) * case.in_fields * case.out_fields * max(1, case.banks)
    maps, passes = (read + written, 1) if pass_ == "forward" else (3 * read + 2 * written, 3)
    return Work(maps * pixels * dtype.itemsize, passes * pixels * taps * read * written, passes * pixels * orbits * products)


class Ceilings(NamedTuple):
    """What this GPU was measured to do: bytes a second in a large copy, and {dtype: operations a second} in a large matrix
    product."""

    bandwidth: float
    rates: dict[str, float]


class Rates(NamedTuple):
    """TFLOP/s of the multiplications done and of dense's, GB/s, and the share of the floor: the time that the bytes or the
    fewest multiplications take at least, over the time taken."""

    tflops: float
    dense_tflops: float
    gb_per_s: float
    floor: float


def rates(setting: Setting, contender: str, seconds: float, ceilings: Ceilings) -> Rates:
    done = work(setting.case, setting.pass_, DTYPES[setting.dtype])
    floor = max(done.bytes / ceilings.bandwidth, 2 * min(done.dense, done.irrep) / ceilings.rates[setting.dtype])
    multiplied = done.irrep if "irrep" in contender else done.dense
    tera = 1e12 * seconds
    return Rates(2 * multiplied / tera, 2 * done.dense / tera, done.bytes / (1e9 * seconds), floor / seconds)


def occupancy(gpu, registers: int, shared_bytes: int, warps: int) -> float:
    """Resident warps of a multiprocessor over the most that it holds, as registers and shared memory allow.

    Args:
        gpu: torch.cuda.get_device_properties' answer.
        registers: of one thread; a warp takes them in units of 256.
        shared_bytes: of one block; the system takes 1 KiB more.
        warps: of one block.
    """
    most = gpu.max_threads_per_multi_processor // 32
    of_warp = math.ceil(32 * registers / 256) * 256
    by_registers = gpu.regs_per_multiprocessor // of_warp // warps if registers else most
    blocks = min(most // warps, by_registers, gpu.shared_memory_per_multiprocessor // (shared_bytes + 1024))
    return blocks * warps / most
