import json

import pytest
import torch

from gconv_ext.cli import main
from gconv_ext.data import load_digits
from gconv_ext.errors import InputError
from gconv_ext.experiments.quarter_turn import QuarterTurnConfig, run, table
from gconv_ext.training.results import read_rows


def test_a_network_that_tells_x_from_its_turned_self(tmp_path):
    """Paper 3, section 4.1: learned at 32 x 32, impossible at 33 x 33, where the two are the same to the bit."""
    told, same = (run(QuarterTurnConfig(size), load_digits(), tmp_path / "results") for size in (32, 33))
    assert not told["exact"] and told["accuracy"] == 1 and told["loss"] < 0.1 and told["largest_difference"] > 0.1
    assert same["exact"] and same["accuracy"] == 0.5 and same["loss"] >= 0.6931 and same["largest_difference"] == 0
    assert same["logits"][0] == same["logits"][1] and same["maps"]["f(x)"] == same["maps"]["T⁻¹(f(T(x)))"]
    assert len(told["epochs"]) == 200 and told["epochs"][-1]["train_accuracy"] == 1
    assert torch.tensor(told["maps"]["f(x)"]).shape == (4, 16, 16)
    assert read_rows(tmp_path / "results" / "results.jsonl") == json.loads(json.dumps([told, same]))
    assert "| 32 | no | 0 | 1.00 |" in table([told, same])
    assert "| 33 | yes | 0 | 0.50 | 0.6931 | 0.0e+00 |" in table([told, same])


def test_resumed_and_refused(tmp_path):
    config = QuarterTurnConfig(28, epochs=1)
    row = run(config, load_digits(), tmp_path)
    assert run(config, load_digits(), tmp_path, resume=True) == json.loads(json.dumps(row))
    with pytest.raises(InputError, match="epochs = 1 there and 2 here"):
        run(QuarterTurnConfig(28, epochs=2), load_digits(), tmp_path, resume=True)
    with pytest.raises(InputError, match="digit must be less than the 5000 training digits, got 5000"):
        run(QuarterTurnConfig(28, digit=5000), load_digits(), tmp_path)
    for change, message in ((dict(size=27), "size must be at least 28"), (dict(lr=0.0), "lr must be positive")):
        with pytest.raises(InputError, match=message):
            QuarterTurnConfig(**(dict(size=32) | change))


def test_the_figure_by_its_command(tmp_path):
    """gconv-ext reproduce and report: the published numbers beside ours, and the maps."""
    assert main(["reproduce", "paper3-fig3", "--seeds", "1", "--out", str(tmp_path)]) == 0
    assert main(["report", "--results", str(tmp_path), "--out", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "2 training images, 200 epochs, 1 seed; 2 runs of 2 settings." in text
    assert "| 32 | 1 | 100.00 | 100.00 | +0.00 |" in text and "| 33 | 1 | 50.00 | 50.00 | +0.00 | 0.69 |" in text
    assert (tmp_path / "report" / "paper3-fig3-maps.png").exists()
