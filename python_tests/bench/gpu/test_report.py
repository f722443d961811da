"""What the report of the benchmark on a GPU says of its rows."""

from pathlib import Path

from gconv_ext.bench.gpu.cases import Ceilings, settings
from gconv_ext.bench.gpu.report import losses, table
from gconv_ext.bench.gpu.run import DEFAULT_DTYPES, not_measured, write
from gconv_ext.bench.resources import Kernel

ABOUT = {
    "gpu": "GPU", "driver": "1.2", "cuda": "13.0", "cudnn": 9, "torch": "2.13", "triton": "3.7", "gconv_ext": "0.1.0",
    "commit": "0123456789abcdef+", "date": "2026-01-01",
}  # fmt: skip
CEILINGS = Ceilings(4e12, {"bfloat16": 7.9e14})


def row(contender, us, speed, case="C4 conv 64-64 32² x64", **more):
    return {
        "case": case, "pass": "forward", "dtype": "bfloat16", "contender": contender, "us": us, "us_quartile1": us - 1,
        "us_quartile3": us + 1, "speed": speed, "speed_quartile1": speed - 0.1, "speed_quartile3": speed + 0.1, "peer": "conv2d",
        "is_peer": contender == "conv2d", "rounds": 5,
    } | more  # fmt: skip


ROWS = [
    row("irrep", 50.0, 2.0, tflops=10.0, dense_tflops=26.7, gb_per_s=1234.0, floor=0.5, kernels=[
        {"kernel": "fprop", "registers": 200, "spills": 0, "shared_bytes": 4096, "occupancy": 0.25}]),
    row("dense", 80.0, 1.25),
    row("conv2d", 100.0, 1.0, eager_us=110.0),
    row("irrep", 90.0, 1.5, case="C4 conv 32-32 32² x64"),
    row("irrep", 50.0, 0.5, case="D4 conv 64-64 56² x64"),
    row("dense", 40.0, 0.625, case="D4 conv 64-64 56² x64"),
    row("conv2d", 25.0, 1.0, case="D4 conv 64-64 56² x64"),
    {"case": "other", "pass": "forward", "dtype": "tf32", "contender": "fused", "failed": "AssertionError: it is wrong"},
    {"case": "other", "pass": "forward", "dtype": "tf32", "contender": "escnn", "not_measured": "it is not there"},
    {"case": "last", "pass": "forward", "dtype": "tf32", "contender": "", "not_measured": "out of time"},
]  # fmt: skip


def test_table():
    text = table(ROWS, ABOUT, CEILINGS, [Kernel("expand", "sm_90a", 40, 64)])
    assert "at commit 0123456789ab+, 2026-01-01. Measured here: a large copy at 4000 GB/s; large matrix products at 790 TFLOP/s in bfloat16." in text
    assert "| irrep | 50.0 (49.0–51.0) |  | 2.00 (1.90–2.10) | 10.0 | 26.7 | 1234 | 50% |" in text
    assert "| conv2d | 100.0 (99.0–101.0) | 110.0 | 1.00 (0.90–1.10) |" in text
    assert "| last | forward | tf32 |  | not measured: out of time |" in text
    assert "| other | forward | tf32 | fused | failed |" in text
    assert "* other, forward, tf32, fused: AssertionError: it is wrong" in text and "* escnn: it is not there" in text
    assert "| irrep | fprop | 200 | 0 | 4096 | 25% |" in text and "| expand | sm_90a | 40 | 64 | 0 | 0 |" in text
    # Our fastest, over the layers that were measured.
    assert "| p4, 32–128 fields | bfloat16 | forward | 1.6 | 1.50 | 2.00 | 2 of 6 |" in text
    assert "| p4m, 16–64 fields | bfloat16 | forward | 2.8 | 0.62 | 0.62 | 1 of 6 |" in text
    assert "| p4m, 16–64 fields | tf32 | forward | 2.5 | not measured | not measured | 0 of 6 |" in text


def test_losses():
    assert losses(ROWS) == ["* D4 conv 64-64 56² x64, forward, bfloat16: dense had 0.62 of the speed of conv2d"]


def test_without_a_measurement_every_row_says_so(tmp_path):
    rows = not_measured(settings(DEFAULT_DTYPES), "no GPU was at hand")
    write(tmp_path, rows)
    text = (tmp_path / "bench.md").read_text()
    assert text.startswith("Nothing was measured so far") and text.count("not measured: no GPU was at hand") == 22 * 6 + 4
    kept = Path(__file__).parents[3] / "bench" / "results" / "gpu"
    if '"about": null' in (kept / "bench.json").read_text():
        assert (kept / "bench.md").read_text() == text and (kept / "bench.json").read_bytes() == (tmp_path / "bench.json").read_bytes()
