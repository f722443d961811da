"""The table of the benchmark on a GPU, and its arithmetic against numbers computed by hand."""

from types import SimpleNamespace

import pytest
import torch

from gconv_ext.bench.cases import LayerCase
from gconv_ext.bench.gpu.cases import CLASSES, GOALS, Ceilings, Setting, Work, occupancy, rates, settings, work

WIDE = LayerCase("C4", 64, 64, 32, 64)


def test_every_layer_comes_once_in_every_column_and_each_class_early():
    found = settings(["bfloat16", "tf32"])
    layers = [setting for setting in found if setting.pass_ != "training step"]
    cases = [case for cases in CLASSES.values() for case in cases]
    assert len(cases) == 22 and len(layers) == len(set(layers)) == 22 * 4
    names = [name for name, cases in CLASSES.items() for setting in found[:3] if setting.case in cases]
    assert names == list(CLASSES) == list(GOALS)
    assert {setting[1:] for setting in found[:3]} == {("forward", "bfloat16")}
    assert [setting.name for setting in found[12:16]] == ["noise_p4_cnn", "noise_relaxed_p4_cnn", "p4_resnet18", "p4m_resnet18"]
    assert not any(setting.pass_ == "training step" for setting in settings(["float32"]))
    assert {setting.case.group for setting in settings(["tf32"], "D4")} == {"D4"} and not settings(["tf32"], "nothing")


PIXELS = 64 * 32 * 32


@pytest.mark.parametrize("case, pass_, dtype, want", [
    # 256 planes in and out; 6 products for the 16 of dense.
    (WIDE, "forward", torch.bfloat16, Work(2 * PIXELS * 512, PIXELS * 9 * 256 * 256, PIXELS * 9 * 6 * 64 * 64)),
    (WIDE, "forward + backward", torch.float32, Work(4 * PIXELS * 5 * 256, 3 * PIXELS * 9 * 256 * 256, 3 * PIXELS * 9 * 6 * 64 * 64)),
    # The group moves the 9 taps of an image in 3 orbits; 3 filter banks have the products of 3.
    (LayerCase("C4", 1, 10, 32, 64, lifting=True), "forward", torch.float32, Work(4 * PIXELS * 41, PIXELS * 360, PIXELS * 180)),
    (LayerCase("C4", 6, 6, 32, 64, banks=3), "forward", torch.float32, Work(4 * PIXELS * 48, PIXELS * 5184, PIXELS * 5832)),
    (LayerCase("D4", 2, 3, 32, 64), "forward", torch.float32, Work(4 * PIXELS * 40, PIXELS * 9 * 16 * 24, PIXELS * 9 * 12 * 6)),
])  # fmt: skip
def test_work(case, pass_, dtype, want):
    assert work(case, pass_, dtype) == want


def test_rates():
    """67,108,864 bytes, 38,654,705,664 multiplications of dense and 14,495,514,624 of irrep in 100 µs."""
    ceilings = Ceilings(4e12, {"bfloat16": 8e14})
    setting = Setting(WIDE, "forward", "bfloat16")
    assert rates(setting, "compiled triton_irrep", 1e-4, ceilings) == pytest.approx((289.91029, 773.09411, 671.08864, 0.36238787))
    assert rates(setting, "conv2d", 1e-4, ceilings) == pytest.approx((773.09411, 773.09411, 671.08864, 0.36238787))
    # The bytes set the floor.
    assert rates(setting, "conv2d", 1e-4, Ceilings(1e12, {"bfloat16": 8e14})).floor == pytest.approx(0.67108864)
    # With filter banks, dense has the fewest multiplications.
    relaxed = Setting(LayerCase("C4", 6, 6, 32, 64, banks=3), "forward", "bfloat16")
    assert rates(relaxed, "irrep", 1e-3, Ceilings(1e15, {"bfloat16": 1e12})).floor == pytest.approx(2 * PIXELS * 5184 / 1e9)


@pytest.mark.parametrize("registers, shared, warps, want", [
    (128, 0, 4, 16 / 64),  # 4096 registers a warp
    (33, 0, 2, 50 / 64),  # 1280 a warp, 51 warps, 25 blocks
    (32, 57856, 8, 24 / 64),  # 3 blocks of 57.5 KiB
    (32, 0, 4, 1),
])  # fmt: skip
def test_occupancy(registers, shared, warps, want):
    gpu = SimpleNamespace(max_threads_per_multi_processor=2048, regs_per_multiprocessor=65536, shared_memory_per_multiprocessor=228 << 10)
    assert occupancy(gpu, registers, shared, warps) == want
