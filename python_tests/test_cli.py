import csv
import json
import subprocess
import sys

import pytest
import torch

from gconv_ext import triton_kernels
from gconv_ext.cli import main


def test_info(capsys):
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    assert "compiled ops: available" in said and "instruction set:" in said
    why_not = triton_kernels.missing_reason()
    assert f"Triton kernels: {'available' if why_not is None else f'missing: {why_not}'}\n" in said
    on_cpu = "dense, irrep" if why_not or torch.cuda.is_available() else "dense, fused, irrep, triton_fused, triton_irrep"
    assert f"  CPU: reference, {on_cpu}\n" in said
    assert f"  GPU: {'reference, dense' if torch.cuda.is_available() else 'PyTorch sees none'}" in said
    not_built = "not built: torch" if torch.version.cuda is None else "not built: nvcc"
    assert f"CUDA kernels: {not_built}" in said or "CUDA kernels: built with nvcc" in said


@pytest.mark.parametrize(
    "command", [[], ["train"], ["train", "noise"], ["search", "noise"], ["bench"], ["exactness"]]
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0 and "usage: gconv-ext" in capsys.readouterr().out


def test_shipped_digits_are_mnist_alone(tmp_path, capsys):
    assert main(["train", "noise", "--dataset", "fashion", "--out", str(tmp_path / "out")]) == 2
    assert "the digits that ship with the package are MNIST" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_training_extra_is_asked_for(tmp_path):
    """Without pytorch-lightning the package imports, and train says what to install."""
    code = (
        "import sys; sys.modules['pytorch_lightning'] = None\n"
        f"from gconv_ext.cli import main; sys.exit(main(['train', 'noise', '--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'gconv_ext[train]'" in done.stderr and "Traceback" not in done.stderr


def test_exactness(capsys):
    assert main(["exactness", "p4cnn", "--size", "28"]) == 0
    assert "exact under C4 at 28 x 28" in capsys.readouterr().out.splitlines()
    assert main(["exactness", "p4cnn", "--size", "28", "29"]) == 1
    said = capsys.readouterr().out
    assert "not exact under C4 at 28 x 29: 1 of 9 layers break it; nearest exact sizes: 28 x 28 and 28 x 30" in said
    assert main(["exactness", "nothing", "--size", "28"]) == 2
    assert "unknown model 'nothing'; expected one of noise_plain_cnn" in capsys.readouterr().err
    for size in (["1"], ["0"], ["8", "8", "8"]):
        assert main(["exactness", "p4cnn", "--size", *size]) == 2
        said = capsys.readouterr()
        assert "error: --size: " in said.err and not said.out


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "new"
    before = torch.get_num_threads()
    assert main(["bench", "--out", str(out), "--only", "C4 lift 1-6", "--repeats", "2", "--threads", "1", "2"]) == 0
    assert torch.get_num_threads() == before
    return out


def test_bench(measured):
    rows = list(csv.DictReader((measured / "bench.csv").open()))
    algorithms = {"reference", "dense", "irrep", "conv2d"}
    contenders = algorithms | {f"{name} channels_last" for name in algorithms}
    for pass_ in ("forward", "forward + backward"):
        for threads in ("1", "2"):
            found = [row["contender"] for row in rows if (row["pass"], row["threads"]) == (pass_, threads)]
            assert len(found) == len(contenders) and set(found) == contenders
    for row in rows:
        assert row["peer"] in ("conv2d", "conv2d channels_last") and float(row["median_ms"]) > 0
        assert row["contender"] != row["peer"] or float(row["ratio"]) == 1
    assert (measured / "bench.png").read_bytes().startswith(b"\x89PNG")
    table = (measured / "bench.md").read_text()
    assert "1 and 2 threads, torch" in table and "C4 lift 1-6 L=3 output 28² x64 | forward | 2 | dense" in table
    assert json.loads((measured / "bench.json").read_text())["threads"] == [1, 2]


def test_bench_overwrites_nothing(measured, capsys):
    before = (measured / "bench.csv").read_bytes()
    assert main(["bench", "--out", str(measured), "--only", "C4 lift 1-6", "--repeats", "1"]) == 2
    assert "bench.csv is there already; give another --out" in capsys.readouterr().err
    assert (measured / "bench.csv").read_bytes() == before


def test_bench_refuses(tmp_path, capsys):
    assert main(["bench", "--out", str(tmp_path), "--only", "nothing"]) == 2
    assert "no case contains 'nothing'; the cases are: C4 lift 1-10" in capsys.readouterr().err
    assert main(["bench", "--out", str(tmp_path), "--repeats", "0"]) == 2
    for threads in (["0"], ["2", "2"]):
        assert main(["bench", "--out", str(tmp_path), "--threads", *threads]) == 2
        assert f"--threads must be different numbers of at least 1, got {' '.join(threads)}" in capsys.readouterr().err


def test_bench_checks_before_it_times(tmp_path, monkeypatch):
    """A contender that computes something else stops the benchmark."""
    from gconv_ext.bench import contenders

    monkeypatch.setattr(contenders.Layer, "peer", lambda self, planes, filter: planes.new_zeros(64, 24, 28, 28))
    with pytest.raises(AssertionError, match="error .* allowed"):
        main(["bench", "--out", str(tmp_path / "out"), "--only", "C4 lift 1-6", "--repeats", "1"])
    assert not (tmp_path / "out" / "bench.csv").exists()
