"""What the benchmark's report says of its rows."""

from gconv_ext.bench.report import auto_losses


def row(threads, contender, milliseconds, auto=""):
    return {"case": "layer", "pass": "forward", "threads": threads, "contender": contender, "median_ms": milliseconds, "auto": auto}


def test_losses_of_auto_are_told_apart_by_threads_and_memory_format():
    rows = [
        row(1, "irrep", 1.0, "auto"), row(1, "dense", 1.02), row(1, "dense channels_last", 0.5, "auto"), row(1, "conv2d", 0.1),
        row(2, "irrep", 0.9, "auto"), row(2, "dense", 0.6), row(2, "dense channels_last", 0.4, "auto"),
    ]  # fmt: skip
    assert auto_losses(rows) == ["* layer, forward, 2 threads: irrep took 1.50 times as long as dense"]
