"""Paper 4's toy tasks: learned in seconds on small images, and the command at tiny size."""

import pytest
import torch
import torch.nn.functional as F
from data.test_idx import idx_bytes  # python_tests/data

from gconv_ext import cli_sixes, create_model
from gconv_ext.cli import main
from gconv_ext.data import load_digits, sixes
from gconv_ext.experiments import targets
from gconv_ext.experiments.sixes import CURVE, MODELS, NONSTATIONARY, SixesConfig, run, subsets, table
from gconv_ext.nn import distribution_parameters
from gconv_ext.training.results import read_rows


def small_sixes(split, task, count):
    """Pairs of 16 x 16 pixels."""
    images, labels = sixes(load_digits(), split, task)
    chosen = torch.cat([torch.arange(count), torch.arange(count) + len(labels) // 2])
    return F.avg_pool2d(F.pad(images[chosen], (2, 2, 2, 2)), 2), labels[chosen]


def outcome(network, task):
    """Accuracy, and how far the logits of the two of a pair are apart, relative to all logits' spread."""
    images, labels = small_sixes("test", task, 200)
    with torch.no_grad():
        logits = network.eval()(images)
    one, other = logits.chunk(2)
    return (logits.argmax(1) == labels).float().mean().item(), ((one - other).abs().max() / logits.std(0).max()).item()


@pytest.mark.parametrize("task, group, elements", [("180", "SE2", 4), ("M", "D1", 1)])
def test_partial_networks_learn_what_strict_ones_cannot(task, group, elements):
    options = dict(num_classes=2, width=4, kernel_size=3, group=group, elements=elements)
    accuracy, apart = outcome(create_model("partial_ckresnet", partial=False, **options), task)
    assert accuracy == 0.5 and apart < 1e-3  # the same for both, whatever the weights

    images, labels = small_sixes("train", task, 200)
    torch.manual_seed(0)
    network = create_model("partial_ckresnet", **options)
    accuracy, apart = outcome(network, task)
    assert accuracy == 0.5 and apart < 1e-3  # so it starts
    distributions = distribution_parameters(network)
    others = [p for name, p in network.named_parameters() if ".distribution." not in name]
    assert len(distributions) + len(others) == len(list(network.parameters()))
    optimizer = torch.optim.Adam([{"params": others}, {"params": distributions, "lr": 0.1}], lr=3e-3)
    for _ in range(10):  # after six, a step may still throw it back below 0.9
        network.train()
        for batch in torch.randperm(len(labels)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    accuracy, _ = outcome(network, task)
    assert accuracy > 0.9
    learned = subsets(network)
    assert [layer["layer"] for layer in learned] == [f"blocks.{i}.conv{j}" for i in (0, 1) for j in (1, 2)] + ["last"]
    assert any(layer["extent"] < 1 if task == "180" else layer["mirror"] < 0.5 for layer in learned)


def train(out, *options):
    tiny = ["--width", "2", "--epochs", "1", "--batch-size", "16", "--accelerator", "cpu"]
    return main(["train", "sixes", *tiny, "--data-dir", str(out), "--out", str(out), *options])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every network, one epoch of 44 sixes from idx files."""
    out = tmp_path_factory.mktemp("trained")
    for prefix, split, count in (("train", "train", 48), ("t10k", "test", 20)):
        images, labels = load_digits().splits[split]
        chosen = [*(labels == 6).nonzero()[0][:count]]
        (out / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images[chosen]))
        (out / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels[chosen]))
    assert train(out, "--task", "M") == 0
    assert train(out, "--task", "180", "--elements", "2", "--model", *MODELS) == 0
    return out


def test_results(trained):
    rows = read_rows(trained / "results.jsonl")
    names = ["M-D1-strict-seed0", "M-D1-partial-seed0", *(f"180-SE2-{model}-seed0" for model in MODELS)]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert len(row["epochs"]) == 1 and row["config"]["distribution_lr"] == 0.1 and row["data"]["test"] == 40
        assert 0 <= row["test_accuracy"] <= 1
        if row["config"]["model"] == "strict":
            assert row["test_accuracy"] == 0.5 and row["subsets"] == []
        if row["config"]["task"] == "180":
            assert len(row["probability_of_six"]) == CURVE
    mirrors = [layer["mirror"] for layer in rows[1]["subsets"]]
    assert len(mirrors) == 5 and all(0.001 < abs(p - 0.8808) < 0.2 for p in mirrors)  # learned, from 0.8808 on
    assert [layer["layer"] for layer in rows[-1]["subsets"]] == ["distribution"]  # Augerino's, of the whole network
    strict, = (row for row in rows if row["name"] == "180-SE2-strict-seed0")
    curve = torch.tensor(strict["probability_of_six"])
    assert torch.allclose(curve, curve.roll(CURVE // 2), atol=1e-4)  # half a turn changes nothing
    assert (trained / "table.md").read_text() == table(rows) + "\n"
    assert "| MNIST6-M | D1 | 1 | partial | 0 |" in table(rows)
    assert (trained / "fig4.png").read_bytes().startswith(b"\x89PNG")


def test_resumed_and_refused(trained, capsys):
    rows = read_rows(trained / "results.jsonl")
    assert train(trained, "--task", "M", "--model", "partial", "--resume") == 0
    assert read_rows(trained / "results.jsonl") == rows
    assert train(trained, "--task", "M", "--model", "partial") == 2
    assert "is there already; give --resume" in capsys.readouterr().err
    assert train(trained, "--task", "M", "--model", "partial", "--resume", "--lr", "1") == 2
    assert "lr = 0.001 there and 1.0 here" in capsys.readouterr().err


def test_models_of_the_command_line():
    assert list(cli_sixes.MODELS) == [*MODELS, *NONSTATIONARY]


def test_paper_2s_network(trained, tmp_path, capsys):
    options = ["--data-dir", str(trained), "--elements", "4", "--model", "soft-none", "soft-rotation"]
    assert train(tmp_path, *options) == 0
    strict, soft = read_rows(tmp_path / "results.jsonl")
    assert strict["test_accuracy"] == 0.5
    difference = [torch.tensor(row["probability_of_six"]) - torch.tensor(row["probability_of_six"]).roll(CURVE // 2) for row in (strict, soft)]
    assert difference[0].abs().max() < 1e-4 < difference[1].abs().max()
    assert train(tmp_path, *options, "--task", "M") == 2
    assert "group must be SE2 for model soft-none, got 'D1'" in capsys.readouterr().err


@pytest.mark.parametrize("change, message", [
    (dict(task="90"), "task must be one of 180, M, got '90'"), (dict(group="p4"), "group must be one of SE2, E2, D1"),
    (dict(model="full"), "model must be one of strict"), (dict(epochs=0), "epochs must be positive"),
    (dict(warmup=-1), "warmup must not be negative"),
])  # fmt: skip
def test_bad_configurations(change, message):
    with pytest.raises(ValueError, match=message):
        SixesConfig(**(dict(task="180", model="strict", group="SE2") | change))


def test_reproduced(trained, tmp_path, monkeypatch):
    text = (targets.PAPERS / "paper2-table2.toml").read_text()
    for full, small in (("elements = 8", "elements = 4"), ("width = 10", "width = 2")):
        assert full in text
        text = text.replace(full, small)
    monkeypatch.setattr(targets, "PAPERS", tmp_path)
    (tmp_path / "paper2-table2.toml").write_text(text)
    options = ["--scale", "0.001", "--data-dir", str(trained), "--out", str(tmp_path), "--accelerator", "cpu"]
    assert main(["reproduce", "paper2-table2", *options]) == 0
    rows = read_rows(tmp_path / "paper2-table2" / "results.jsonl")
    assert {row["config"]["model"]: row["config"]["group"] for row in rows} == dict.fromkeys(["soft-none", "partial", "soft-rotation"], "SE2")
    for row in rows:
        config = row["config"]
        assert (config["train_images"], config["epochs"], config["warmup"], config["batch_size"], row["data"]["train"]) == (16, 1, 1, 16, 32)
    assert main(["report", "--results", str(tmp_path), "--out", str(tmp_path / "report")]) == 0
    assert "| soft-none | 1 | 50.00 | 50.00 | +0.00 |" in (tmp_path / "report" / "report.md").read_text()


def test_more_images_than_there_are(trained, tmp_path):
    with pytest.raises(ValueError, match="train_images must be at most the 44 of the training split, got 45"):
        run(SixesConfig("180", "strict", "SE2", train_images=45), load_digits(trained), tmp_path)
    with pytest.raises(ValueError, match="train_images must be positive, got 0"):
        SixesConfig("180", "strict", "SE2", train_images=0)
