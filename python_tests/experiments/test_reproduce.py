"""gconv-ext reproduce and report: at tiny size, interrupted, resumed, refused, and shown."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data.test_idx import idx_bytes  # python_tests/data

from gconv_ext.cli import main
from gconv_ext.data import load_digits
from gconv_ext.experiments import targets
from gconv_ext.experiments.report import write_report
from gconv_ext.training.fit import read_checkpoint
from gconv_ext.training.results import read_rows

RESULTS = Path(__file__).parents[2] / "results"
TINY = """
title = "A tiny table"
experiment = "noise"
dataset = "mnist"
seeds = 20
lines = "model"
curves = true
[figures]
test_noisy_accuracy = "noisy %"
[settings]
epochs = 200
batch_size = 16
[[runs]]
sigma = [0.1, 0.2]
model = ["plain"]
[published]
columns = ["sigma", "model", "test_noisy_accuracy"]
rows = [[0.1, "plain", [92.35, 0.5]], [0.2, "plain", "unreadable"]]
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A set of 144 training, 13 validation and 40 test digits, as idx files."""
    folder = tmp_path_factory.mktemp("digits")
    for prefix, split, count in (("train", "train", 157), ("t10k", "test", 40)):
        images, labels = (array[:count] for array in load_digits().splits[split])
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A target of two settings, in place of the papers'."""
    monkeypatch.setattr(targets, "PAPERS", tmp_path / "papers")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "tiny.toml").write_text(TINY)


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """Paper 1's Fig. 3, the least there is of it: three networks, one step each."""
    out = tmp_path_factory.mktemp("results")
    assert reproduce(files, out, "paper1-fig3", "--scale", "0.001", "--jobs", "2") == 0
    return out


def reproduce(files, out, target, *options):
    return main(["reproduce", target, "--data-dir", str(files), "--out", str(out), "--accelerator", "cpu", *options])


def without_times(row):
    return [{key: value for key, value in epoch.items() if key != "train_seconds"} for epoch in row["epochs"]]


def form(value):
    """The keys and types of a row; of a list, those of its first entry.  A copy without its history has no commit."""
    if isinstance(value, dict):
        return {key: form(entry) for key, entry in value.items() if key != "commit"}
    return [form(value[0])] if isinstance(value, list) and value else type(value).__name__


def test_results_file(trained):
    rows = read_rows(trained / "paper1-table1" / "results.jsonl")
    assert sorted(row["config"]["model"] for row in rows) == ["p4", "plain", "relaxed"]
    for row in rows:
        assert {key: row["reproduce"][key] for key in ("target", "scale", "images", "all_images", "resumed")} == {
            "target": "paper1-table1", "scale": 0.001, "images": 16, "all_images": 144, "resumed": False,
        }  # fmt: skip
        assert row["reproduce"]["wall_seconds"] > 0 and len(row["epochs"]) == 1
        assert row["config"]["train_digits"] == 16 and row["config"]["epochs"] == 1 and row["data"]["train"] == 144
        paths = {"auto"} if row["config"]["model"] == "plain" else {"reference", "dense", "auto"}
        assert set(row["steps_per_second"]) == paths and all(speed > 0 for speed in row["steps_per_second"].values())
    assert [path.name for path in (trained / "paper1-table1").iterdir()] == ["results.jsonl"]  # no checkpoints


PAPER_1 = [name for name in targets.target_names() if targets.load_target(name).experiment == "noise"]


@pytest.mark.parametrize("path", [path for path in RESULTS.glob("*/results.jsonl") if path.parent.name in PAPER_1])
def test_committed_results_are_of_todays_form(trained, path):
    fresh = {row["config"]["model"]: form(row) for row in read_rows(trained / "paper1-table1" / "results.jsonl")}
    for row in read_rows(path):
        assert form(row) == fresh[row["config"]["model"]]


def test_finished_runs_are_kept_and_nothing_is_overwritten(files, trained, capsys):
    path = trained / "paper1-table1" / "results.jsonl"
    before = path.read_text()
    for options, message in [
        (["--scale", "0.001"], "has results already (3 rows); give --resume to go on, or another --out"),
        (["--scale", "0.002", "--resume"], "is of scale 0.001 and not 0.002"),
    ]:
        assert reproduce(files, trained, "paper1-fig3", *options) == 2
        assert message in capsys.readouterr().err
    assert main(["reproduce", "paper1-fig3", "--scale", "0.001", "--resume", "--out", str(trained)]) == 2
    assert "is of other data (mnist from idx files)" in capsys.readouterr().err
    assert reproduce(files, trained, "paper1-fig3", "--scale", "0.001", "--resume") == 0
    assert "3 runs, 0 of them to train" in capsys.readouterr().out
    assert path.read_text() == before


def test_interrupted_and_resumed(files, tmp_path, tiny, capsys):
    """Ctrl-C in the second epoch or later of the first run; then the same figures as without an interruption."""
    arguments = _arguments(files)
    process, folder = _begun(arguments, tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group gets it
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.startswith("gconv-ext: interrupted; the same command with --resume"), errors
    assert len(errors.strip().splitlines()) == 1, errors
    assert not (folder / "results.jsonl").exists()
    begun = {path.parent.name: read_checkpoint(path)["history"] for path in folder.glob("unfinished/*/*/last.ckpt")}
    assert 1 < max(map(len, begun.values())) and min(map(len, begun.values())) < 10

    assert main([*arguments, "--out", str(tmp_path / "a")]) == 2
    assert "has results already (0 rows); give --resume" in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "a"), "--resume"]) == 0
    assert main([*arguments, "--out", str(tmp_path / "b")]) == 0
    resumed, whole = ({row["name"]: row for row in read_rows(tmp_path / run / "tiny" / "results.jsonl")} for run in "ab")
    assert len(whole) == len(resumed) == 2
    for name, history in begun.items():  # its epochs are kept, down to their seconds
        assert resumed[name]["epochs"][: len(history)] == history and resumed[name]["reproduce"]["resumed"]
    assert all(without_times(resumed[name]) == without_times(whole[name]) and len(whole[name]["epochs"]) == 10 for name in whole)
    assert list(folder.iterdir()) == [folder / "results.jsonl"]

    assert main([*arguments, "--out", str(tmp_path / "b"), "--resume", "--seeds", "2"]) == 0  # more seeds, in the same file
    rows = read_rows(tmp_path / "b" / "tiny" / "results.jsonl")
    assert [row["config"]["seed"] for row in rows] == [0, 0, 1, 1]

    _report_of_the_tiny_table(tmp_path, rows)


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_processes_end_with_their_parent(files, tiny, tmp_path):
    process, _ = _begun(_arguments(files), tmp_path)
    children = [Path("/proc", pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) >= 2
    process.kill()
    deadline = time.time() + 60
    while any(_runs(child) for child in children):
        assert time.time() < deadline
        time.sleep(0.1)
    process.communicate()


def _runs(process):
    try:
        return "zombie" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _arguments(files):
    return ["reproduce", "tiny", "--data-dir", str(files), "--accelerator", "cpu", "--scale", "0.05", "--jobs", "2"]


def _begun(arguments, tmp_path):
    """The command in a process of its own, with a run in its second epoch or later; and its folder of results."""
    code = (
        "import sys; from pathlib import Path; from gconv_ext.cli import main; from gconv_ext.experiments import targets\n"
        f"targets.PAPERS = Path({str(tmp_path / 'papers')!r})\n"
        f"sys.exit(main([*{arguments!r}, '--out', {str(tmp_path / 'a')!r}]))"
    )
    # A suite that runs in the background may have SIGINT ignored, and children inherit that.
    default = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default,
        start_new_session=True,
    )  # fmt: skip
    folder, deadline = tmp_path / "a" / "tiny", time.time() + 120
    while not any(len(read_checkpoint(path)["history"]) > 1 for path in folder.glob("unfinished/*/*/last.ckpt")):
        assert process.poll() is None and time.time() < deadline, process.communicate()
        time.sleep(0.02)
    return process, folder


def _report_of_the_tiny_table(tmp_path, rows):
    write_report(tmp_path / "b", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    values = [100 * row["test_noisy_accuracy"] for row in rows if row["config"]["sigma"] == 0.1]
    mean, error = sum(values) / 2, abs(values[0] - values[1]) / 2  # of two: |a − b| / 2
    assert f"| 0.1 | 2 | {mean:.2f} ± {error:.2f} | 92.35 ± 0.50 | **−{92.35 - mean:.2f}** |" in text
    assert re.search(r"\| 0.2 \| 2 \| [\d.]+ ± [\d.]+ \| unreadable \| – \|", text)
    assert "Scale 0.05: 16 training images, 10 epochs, batches of 16, 2 seeds; 4 runs of 2 settings." in text
    assert "gconv-ext reproduce tiny --scale 0.05 --seeds 2 --data-dir DIR\n" in text


def test_report(trained, tmp_path):
    assert main(["report", "--results", str(trained), "--out", str(tmp_path)]) == 0
    text, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert "Scale 0.001: 16 training images, 1 epochs, batches of 16, 1 seed; 3 runs of 3 settings (the target has 21)." in text
    assert re.search(r"\| none \| 0.1 \| p4 \| 1 \| [\d.]+ \| 96.65 \| [+−][\d.]+ \|", text)
    assert "| p4 | 25,400 |" in text and "paper1-beyond" in text.split("## Not run")[1]
    assert "| none | 0.1 |" in text.split("Does relaxing the symmetry help?")[1]
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert pictures == ["paper1-table1.png", "paper1-fig3-curves.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert page.count("<table>") == text.count("---:") - sum(line.count("---:") - 1 for line in text.splitlines() if "---:" in line)
    sources = re.findall(r"<(?:img|script|link|iframe)[^>]*?(?:src|href)=\"([^\"]*)\"", page)
    assert len(sources) == 2 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in page and "<link" not in page and "url(" not in page and "@import" not in page


def test_report_without_results(tmp_path, capsys):
    assert main(["report", "--results", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no results of gconv-ext reproduce here" in capsys.readouterr().err and not (tmp_path / "out").exists()
    (tmp_path / "paper1-table1").mkdir()
    (tmp_path / "paper1-table1" / "results.jsonl").write_text(json.dumps({"name": "x"}) + "\n")
    assert main(["report", "--results", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "not a results file of gconv-ext reproduce" in capsys.readouterr().err
