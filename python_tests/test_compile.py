"""torch.compile, autocast, and a package without its compiled ops."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import gconv_ext
from gconv_ext import nn


def small_network(algorithm="auto"):
    torch.manual_seed(1)
    return torch.nn.Sequential(
        nn.RelaxedLiftingConv2d(1, 3, 3, padding=1, num_filter_banks=2, algorithm=algorithm), torch.nn.ReLU(),
        nn.GroupConv2d(3, 4, 3, padding=1, padding_mode="circular", algorithm=algorithm), nn.GroupBatchNorm2d(4), torch.nn.ReLU(),
        nn.RelaxedGroupConv2d(4, 2, 3, num_filter_banks=2, relax_on="input", algorithm=algorithm), nn.GroupPool(),
    )  # fmt: skip


@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep"])
def test_compile_fullgraph(algorithm):
    """Forward and backward, the batch becoming dynamic on the way."""
    torch._dynamo.reset()
    eager, compiled_network = small_network(algorithm), small_network(algorithm)
    compiled = torch.compile(compiled_network, fullgraph=True)
    for batch in (2, 3, 5):
        x = torch.randn(batch, 1, 8, 8)
        want, got = eager(x), compiled(x)
        assert torch.allclose(got, want, atol=1e-5)
        want.square().sum().backward(), got.square().sum().backward()
    for (name, p), q in zip(eager.named_parameters(), compiled_network.parameters()):
        assert torch.allclose(p.grad, q.grad, atol=1e-3, rtol=1e-3), name


@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep"])
def test_autocast(algorithm):
    network, x = small_network(algorithm), torch.randn(2, 1, 8, 8)
    want = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = network(x)
        layer = nn.GroupConv2d(2, 2, 3)
        assert layer(torch.randn(1, 2, 4, 5, 5)).dtype == torch.bfloat16
        assert layer(torch.randn(1, 2, 4, 5, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert (got - want).abs().max() < 0.1 * want.abs().max()
    got.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


def test_fake_tensors():
    with FakeTensorMode():
        network = small_network()
        assert network(torch.randn(2, 1, 8, 8)).shape == (2, 2, 6, 6)


WITHOUT_OPS = """
import torch, gconv_ext
from gconv_ext import nn, ops
layer = nn.RelaxedGroupConv2d(2, 3, 3, num_filter_banks=2)
x = torch.randn(1, 2, 4, 5, 5)
layer(x).sum().backward()
said = gconv_ext.explain(x, layer.weight, layer.relaxed_weight, group="C4")
assert said.algorithm == "reference" and "no C++ compiler" in said.rejected["dense"], said
gconv_ext.functional.expand_filter(layer.weight, layer.relaxed_weight, group="C4")
layer.algorithm = "dense"
try:
    layer(x)
except RuntimeError as error:
    print(error)
from gconv_ext.cli import main
main(["info"])
"""


@pytest.mark.parametrize("library, reason", [(None, "no C++ compiler was found"), (b"no library", "could not be loaded (built with torch")])
def test_without_the_compiled_ops(tmp_path, library, reason):
    """The package imports and computes; `info` and the error of algorithm="dense" give the reason."""
    package = Path(gconv_ext.__file__).parent
    shutil.copytree(package, tmp_path / "gconv_ext", ignore=shutil.ignore_patterns("*.so", "__pycache__", "digits.npz"))
    script = WITHOUT_OPS
    if library is not None:
        (tmp_path / "gconv_ext" / "_C.so").write_bytes(library)
        script = script.replace("no C++ compiler", "could not be loaded")
    # -I and an explicit path: the copy, not the installed package.
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nsys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]\n{script}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "algorithm='dense' is not available: the compiled ops" in done.stdout
    assert "compiled ops: missing: the compiled ops" in done.stdout and done.stdout.count(reason) == 2
