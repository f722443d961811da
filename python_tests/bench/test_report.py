"""What the benchmark's report says of its rows."""

from gconv_ext.bench.report import auto_losses, convolution_shares


def row(threads, contender, milliseconds, auto=""):
    return {"case": "case", "pass": "forward", "threads": threads, "contender": contender, "median_ms": milliseconds, "auto": auto}


def test_losses_of_auto_are_told_apart_by_threads_and_memory_format():
    rows = [
        row(1, "irrep", 1.0, "auto"), row(1, "dense", 1.02), row(1, "dense channels_last", 0.5, "auto"), row(1, "conv2d", 0.1),
        row(2, "irrep", 0.9, "auto"), row(2, "dense", 0.6), row(2, "dense channels_last", 0.4, "auto"),
    ]  # fmt: skip
    assert auto_losses(rows) == ["* case, forward, 2 threads: irrep took 1.50 times as long as dense"]


def test_convolution_shares():
    rows = [row(1, "auto", 4.0), row(1, "convolutions", 3.0), row(2, "convolutions", 1.0), row(2, "auto", 2.0)]
    assert convolution_shares(rows) == [
        "* case, 1 thread: the convolutions are 75% of the training step",
        "* case, 2 threads: the convolutions are 50% of the training step",
    ]
