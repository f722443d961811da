"""The measurement of memory: it sees what a call allocates, also when the call has freed it again."""

from functools import partial

import pytest

from gconv_ext.bench import memory
from gconv_ext.bench.cases import LayerCase
from gconv_ext.bench.report import memory_table

pytestmark = pytest.mark.skipif(memory.missing_reason() is not None, reason=str(memory.missing_reason()))
MIB = 2**20


@pytest.mark.parametrize("code, mib", [
    ("pass", 0),
    ("kept = torch.ones(2**26)", 256),
    ("torch.ones(2**26)", 256),  # freed at once
    ("torch.ones(2**26), torch.ones(2**25)", 384),
    ("torch.ones(2**26); torch.ones(2**25)", 256),
    ("untouched = torch.empty(2**26)", 0),
])  # fmt: skip
def test_peak(code, mib):
    measured = memory.in_fresh_process(memory.peak, partial(exec, f"import torch; {code}")) / MIB
    assert mib - 1 < measured < mib + 10  # with the code that it loads


def test_a_process_that_dies_is_no_result():
    with pytest.raises(EOFError):
        memory.in_fresh_process(exec, "import os; os._exit(1)")


def test_measure():
    """The result and, backward, the gradient to x are there at the peak."""
    case = LayerCase("C4", 8, 8, 32, 32)
    map_mib = 32 * 32 * 32 * 32 * 4 / MIB
    rows = memory.measure(case, [1])
    assert len(rows) == 12 and {row["threads"] for row in rows} == {1}
    for row in rows:
        least = 1 if row["pass"] == "forward" else 2
        assert least * map_mib - 0.5 < row["peak_mib"] < 6 * map_mib, row


def test_table():
    peaks = [
        {"case": "case", "pass": "forward", "threads": 2, "contender": f"{name}{format}", "peak_mib": mib}
        for name, mibs in (("dense", (10, 5)), ("irrep", (13.9, 9.1)), ("conv2d", (9, 4)))
        for format, mib in zip(("", " channels_last"), mibs)
    ]
    text = memory_table(peaks, {"l2_cache": 2 * MIB})
    assert "| case | forward | 2 | 10.0 / 5.0 | 13.9 / 9.1 | 9.0 / 4.0 |" in text
    assert text.endswith("a thread:\n\n* case, forward, 2 threads, channels last: 4.1 MiB more than dense\n")
