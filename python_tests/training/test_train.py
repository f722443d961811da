"""gconv-ext train: end to end at tiny size, resumed, interrupted, shared by processes, and refused."""

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from data.test_idx import idx_bytes, write_set  # python_tests/data

from gconv_ext.cli import main
from gconv_ext.data import load_digits
from gconv_ext.training.fit import read_checkpoint
from gconv_ext.training.results import read_rows

FILES = Path(tempfile.mkdtemp(prefix="gconv_ext-digits-"))
atexit.register(shutil.rmtree, FILES, ignore_errors=True)
TINY = ["train", "noise", "--data-dir", str(FILES), "--batch-size", "32", "--accelerator", "cpu"]


@pytest.fixture(autouse=True, scope="session")
def _files():
    """A set of 144 training, 13 validation and 40 test digits, as idx files."""
    splits = load_digits().splits
    for prefix, split, count in (("train", "train", 157), ("t10k", "test", 40)):
        images, labels = (array[:count] for array in splits[split])
        (FILES / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (FILES / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


def train(out, *options):
    return main([*TINY, "--out", str(out), *options])


def epochs(out, name):
    """Figures of every epoch without the times."""
    rows = [row for row in read_rows(out / "results.jsonl") if row["name"] == name]
    return [{k: v for k, v in epoch.items() if k != "train_seconds"} for epoch in rows[-1]["epochs"]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All three networks, two epochs."""
    out = tmp_path_factory.mktemp("trained")
    assert train(out, "--epochs", "2") == 0
    return out


def test_results_file(trained):
    rows = read_rows(trained / "results.jsonl")
    assert [row["config"]["model"] for row in rows] == ["plain", "p4", "relaxed"]
    for row in rows:
        assert [epoch["epoch"] for epoch in row["epochs"]] == [0, 1]
        assert {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "equivariance_penalty"} <= set(row["epochs"][0])
        assert row["versions"]["torch"] == torch.__version__ and row["config"]["seed"] == 0
        assert row["data"]["train"] == 144 and row["config"]["train_digits"] is None
        assert 0 <= row["test_noisy_accuracy"] <= 1 and row["seconds_per_epoch"] > 0
        worst = max(row["equivariance_error"]["relative"])
        assert worst < 1e-3 if row["config"]["model"] == "p4" else worst > 0
    assert rows[1]["speed_against_reference"] > 0 and rows[0]["speed_against_reference"] is None
    assert rows[2]["epochs"][-1]["equivariance_penalty"] > 0  # it has left the symmetric point


def test_table_and_pictures(trained):
    table = (trained / "table.md").read_text()
    assert all(f"| aniso | 0.2 | {model} |" in table for model in ("plain", "p4", "relaxed"))
    for name in ("fig1-noise-map", "fig2-digit", "curves-aniso-0.2", "relaxed-weights-relaxed-aniso-0.2-seed0", "table1"):
        assert (trained / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_same_result_and_another_seed_another(trained, tmp_path):
    assert train(tmp_path, "--epochs", "2", "--model", "relaxed") == 0
    assert epochs(tmp_path, "relaxed-aniso-0.2-seed0") == epochs(trained, "relaxed-aniso-0.2-seed0")
    assert train(tmp_path, "--epochs", "1", "--model", "relaxed", "--seed", "1") == 0
    assert epochs(tmp_path, "relaxed-aniso-0.2-seed1")[0] != epochs(tmp_path, "relaxed-aniso-0.2-seed0")[0]


def test_a_finished_run_is_kept(trained, capsys):
    before = (trained / "results.jsonl").read_text()
    assert train(trained, "--epochs", "2", "--model", "p4", "--resume") == 0
    assert "finished already" in capsys.readouterr().out
    assert train(trained, "--epochs", "2", "--model", "p4") == 2
    assert "p4-aniso-0.2-seed0 is there already; give --resume" in capsys.readouterr().err
    assert train(trained, "--epochs", "3", "--model", "p4", "--resume") == 2
    assert "is of another configuration: epochs = 2 there and 3 here" in capsys.readouterr().err
    assert (trained / "results.jsonl").read_text() == before


def test_results_and_checkpoints_from_before_an_option_resume(trained, tmp_path, capsys):
    """The first results files have neither correlation nor width: they ran with today's defaults."""
    rows = [row for row in read_rows(trained / "results.jsonl") if row["config"]["model"] == "p4"]
    for name in ("correlation", "width"):
        assert rows[0]["config"].pop(name, "missing") in (0.0, None)
    (tmp_path / "results.jsonl").write_text(json.dumps(rows[0]) + "\n")
    options = ["--epochs", "2", "--model", "p4", "--resume"]
    assert train(tmp_path, *options) == 0
    assert "finished already" in capsys.readouterr().out and len(read_rows(tmp_path / "results.jsonl")) == 1
    assert "| aniso | 0.2 | p4 |" in (tmp_path / "table.md").read_text()

    folder = tmp_path / "again" / "p4-aniso-0.2-seed0"
    folder.mkdir(parents=True)
    checkpoint = torch.load(trained / folder.name / "last.ckpt", weights_only=True)
    del checkpoint["config"]["correlation"], checkpoint["config"]["width"]
    torch.save(checkpoint, folder / "last.ckpt")
    assert train(tmp_path / "again", *options) == 0
    assert epochs(tmp_path / "again", folder.name) == epochs(trained, folder.name)


def test_p4m_other_noise_correlation_and_width(tmp_path):
    options = ["--epochs", "1", "--noise", "radial", "--correlation", "1.5", "--width", "2"]
    for model in ("relaxed-p4m", "p4m", "relaxed-translation"):
        assert train(tmp_path, *options, "--model", model) == 0
    relaxed, strict, translation = read_rows(tmp_path / "results.jsonl")
    assert relaxed["name"] == "relaxed-p4m-radial-0.2-correlation1.5-width2-seed0"
    assert len(strict["equivariance_error"]["relative"]) == 8 and max(strict["equivariance_error"]["relative"]) < 1e-3
    assert relaxed["epochs"][-1]["equivariance_penalty"] > 0 and relaxed["parameters"] != strict["parameters"]
    assert "| radial, correlated over 1.5 px | 0.2 | relaxed-p4m, width 2 |" in (tmp_path / "table.md").read_text()
    weights = [f"relaxed-weights-{row['name']}" for row in (relaxed, translation)]
    for name in ("noise-map-radial", "curves-radial-0.2-correlation1.5", *weights):
        assert (tmp_path / f"{name}.png").exists()


@pytest.mark.parametrize("when", ["before the first epoch ends", "after the second epoch"])
def test_ctrl_c_and_resume(tmp_path, when):
    """Interrupted by a real SIGINT, then resumed: the same figures as a run without interruption."""
    options = ["--epochs", "12", "--model", "relaxed"]
    name = "relaxed-aniso-0.2-seed0"
    command = [sys.executable, "-m", "gconv_ext.cli", *TINY, *options, "--out", str(tmp_path / "a")]
    # A suite that runs in the background may have SIGINT ignored, and children inherit that.
    default = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default)
    checkpoint = tmp_path / "a" / name / "last.ckpt"
    wanted = 0 if "before" in when else 2
    deadline = time.time() + 120
    while not checkpoint.exists() or len(read_checkpoint(checkpoint)["history"]) < wanted:
        assert process.poll() is None and time.time() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "gconv-ext: interrupted" in errors and "--resume" in errors, errors
    done = len(read_checkpoint(checkpoint)["history"])
    assert wanted <= done < 12 and not (tmp_path / "a" / "results.jsonl").exists()

    assert train(tmp_path / "a", *options, "--resume") == 0
    assert train(tmp_path / "b", *options) == 0
    assert epochs(tmp_path / "a", name) == epochs(tmp_path / "b", name)
    weights = [read_checkpoint(tmp_path / run / name / "last.ckpt")["state_dict"] for run in "ab"]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_two_processes_give_the_losses_of_one(tmp_path):
    """DDP with gloo on the CPU: the same global batches, so the same losses within rounding, which training amplifies: in
    float64."""
    options = ["--epochs", "2", "--model", "relaxed", "--precision", "64-true"]
    for processes in ("1", "2"):
        command = [sys.executable, "-m", "gconv_ext.cli", *TINY, *options, "--processes", processes, "--out", str(tmp_path / processes)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
    one, two = (epochs(tmp_path / processes, "relaxed-aniso-0.2-seed0") for processes in ("1", "2"))
    for a, b in zip(one, two, strict=True):
        assert a["epoch"] == b["epoch"]
        for key in ("train_loss", "validation_loss", "equivariance_penalty", "train_accuracy", "validation_accuracy"):
            assert a[key] == pytest.approx(b[key], rel=1e-6, abs=1e-9), key


def test_bfloat16_and_fashion_files(tmp_path):
    write_set(tmp_path / "files", gz=True, train=120, test=20)
    options = ["--data-dir", str(tmp_path / "files"), "--dataset", "fashion", "--train-digits", "64"]
    assert train(tmp_path / "out", "--epochs", "1", "--model", "p4", "--precision", "bf16-mixed", "--noise", "none", *options) == 0
    row = read_rows(tmp_path / "out" / "results.jsonl")[0]
    assert row["data"] == {"origin": "fashion from idx files", "train": 110, "validation": 10, "test": 20}


@pytest.mark.parametrize(
    "options, message",
    [
        (["--sigma", "-1"], "sigma must not be negative, got -1.0"),
        (["--epochs", "0"], "epochs must be positive, got 0"),
        (["--correlation", "-1"], "correlation must not be negative, got -1.0"),
        (["--width", "0"], "width must be positive, got 0"),
        (["--train-digits", "8"], "train_digits must be at least one batch, 32, got 8"),
        (["--processes", "0"], "--processes must be at least 1, got 0"),
        (["--processes", "3"], "batch_size must be a multiple of the 3 processes, got 32"),
        (["--data-dir", "/nowhere"], "no train-images-idx3-ubyte or"),
        (["--accelerator", "abacus", "--model", "plain"], "cannot train with accelerator='abacus'"),
        (["--precision", "7", "--model", "plain"], "precision='7'"),
    ],
)
def test_bad_options(tmp_path, capsys, options, message):
    assert train(tmp_path / "out", "--epochs", "1", *options) == 2
    errors = capsys.readouterr().err
    assert message in errors and len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_unwritable_output(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert train(tmp_path / "file", "--epochs", "1", "--model", "plain") == 2
    errors = capsys.readouterr().err
    assert str(tmp_path / "file") in errors and len(errors.strip().splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of a file", None])
def test_broken_checkpoints(tmp_path, capsys, content):
    folder = tmp_path / "plain-aniso-0.2-seed0"
    folder.mkdir()
    if content is None:
        torch.save({"state_dict": {}}, folder / "last.ckpt")
    else:
        (folder / "last.ckpt").write_bytes(content)
    before = (folder / "last.ckpt").read_bytes()
    assert train(tmp_path, "--epochs", "1", "--model", "plain", "--resume") == 2
    errors = capsys.readouterr().err
    assert "last.ckpt: " in errors and "checkpoint" in errors and len(errors.strip().splitlines()) == 1
    assert (folder / "last.ckpt").read_bytes() == before


def test_broken_results_file(tmp_path, capsys):
    (tmp_path / "results.jsonl").write_text(json.dumps({"name": "x"}) + "\n{half")
    assert train(tmp_path, "--epochs", "1", "--model", "plain") == 2
    assert "results.jsonl, line 2: not JSON" in capsys.readouterr().err
