"""The benchmark of converted networks: small ones, in every step but the clock's."""

import sys
from functools import partial

import pytest
import torch
from peers import PEERS

from gconv_ext import convert
from gconv_ext.bench.convert import Case, SteerableCNN, WideResNet, measure, prepared, table


class SmallCNN(SteerableCNN):
    def __init__(self, group):
        super().__init__(group, fields=6 * (1,))


class SmallResNet(WideResNet):
    def __init__(self, group):
        super().__init__(group, planes=(4, 8, 8))


@pytest.mark.parametrize("network", [SmallCNN, SmallResNet])
def test_prepared(network):
    """Both networks, and what is said of them."""
    PEERS["escnn"]()
    networks, about = prepared(Case(network, "C4", 2), steps=1, tested=10)
    slow, fast = networks.values()
    assert type(slow) is type(fast) is network and convert(fast)[1].converted == ()
    assert about["difference"] < 1e-4 and about["accuracy"] == about["accuracy_converted"]
    assert about["kept"] == []


def test_rows_and_table(monkeypatch):
    PEERS["escnn"]()
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys.modules[measure.__module__], "prepared", partial(prepared, steps=1, tested=10))
    rows = measure([Case(SmallResNet, "C4", 2)], [threads], repeats=5)
    assert [(row["pass"], row["contender"]) for row in rows] == [
        ("inference", "escnn"), ("inference", "converted"), ("training step", "escnn"), ("training step", "converted"),
    ]  # fmt: skip
    assert all(row["quartile1_ms"] <= row["median_ms"] <= row["quartile3_ms"] for row in rows)
    about = {"device": "a processor", "torch": "2", "escnn": "1", "commit": "abc", "load": [0.5, 1.5], "cores": 2}
    lines = table(rows, about).splitlines()
    assert lines[0] == "a processor, torch 2, escnn 1, commit abc, float32."
    assert len(lines) == 13 and lines[-1].startswith(f"| SmallResNet C4 32² x2 | training step | {threads} | ")
