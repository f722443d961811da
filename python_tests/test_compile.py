"""torch.compile, autocast, the kept filter, and a package without its compiled ops."""

import gc
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import gconv_ext
from gconv_ext import dense, functional, kernels, nn


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


KEEPERS = {  # algorithm: (what is kept, module and name of the function that computes it)
    "dense": (dense._kept_filter, dense.autograd, "expand_filter"),
    "irrep": (kernels._kept_transform, kernels.ops, "transform_weight"),
}


@pytest.fixture(params=KEEPERS)
def algorithm(request):
    return request.param


@pytest.fixture
def computed(monkeypatch, algorithm):
    """A list that grows by one whenever what is kept is computed."""
    calls, (_, module, name) = [], KEEPERS[algorithm]
    compute = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args: calls.append(1) or compute(*args))
    return calls


@pytest.mark.parametrize("no_gradient", [torch.no_grad, torch.inference_mode])
def test_the_filter_is_kept_without_gradients(computed, algorithm, no_gradient):
    layer = nn.RelaxedGroupConv2d(2, 3, 3, num_filter_banks=2, algorithm=algorithm)
    x = torch.randn(1, 2, 4, 5, 5)
    want = layer(x)
    computed.clear()
    with no_gradient():
        assert torch.equal(layer(x), want) and torch.equal(layer(x), want)
        assert layer(torch.randn(3, 2, 4, 9, 7)).shape == (3, 3, 4, 7, 5)
    assert len(computed) == 1


@pytest.mark.parametrize("change", [
    lambda layer: layer.weight.add_(1),
    lambda layer: layer.weight.data.add_(1),  # no version counter sees this one
    lambda layer: layer.relaxed_weight[0, 1].mul_(3),
    lambda layer: setattr(layer.weight, "data", torch.randn_like(layer.weight)),
    lambda layer: layer.load_state_dict(nn.RelaxedGroupConv2d(2, 3, 3, num_filter_banks=2).state_dict()),
    lambda layer: layer.double().weight.mul_(2),
])  # fmt: skip
def test_a_changed_weight_is_seen(change, algorithm):
    layer, x = nn.RelaxedGroupConv2d(2, 3, 3, num_filter_banks=2, algorithm=algorithm), torch.randn(1, 2, 4, 5, 5)
    with torch.no_grad():
        before = layer(x)
        change(layer)
        after = layer(x.to(layer.weight.dtype))
        layer.algorithm = "reference"
        assert torch.allclose(after, layer(x.to(layer.weight.dtype)), atol=1e-4)
    assert not torch.allclose(after.float(), before)


def test_one_weight_in_two_layers_of_other_groups(algorithm):
    weight, x = torch.randn(3, 2, 4, 3, 3), torch.randn(1, 2, 4, 5, 5)
    for _ in range(2):
        for group in ("C4", "D2"):
            got = functional.group_conv2d(x, weight, group=group, algorithm=algorithm)
            assert torch.allclose(got, functional.group_conv2d(x, weight, group=group, algorithm="reference"), atol=1e-4)


def test_the_filter_is_not_kept_when_a_gradient_is_needed(algorithm):
    layer = nn.GroupConv2d(2, 3, 3, algorithm=algorithm)
    layer(torch.randn(1, 2, 4, 5, 5)).sum().backward()
    assert layer.weight not in KEEPERS[algorithm][0]._entries


def test_a_kept_filter_of_inference_mode_does_not_reach_autograd(algorithm):
    layer, x = nn.GroupConv2d(2, 3, 3, algorithm=algorithm).requires_grad_(False), torch.randn(1, 2, 4, 5, 5, requires_grad=True)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert x.grad is not None


def test_kept_filters_go_with_their_weight(algorithm):
    layer, x = nn.GroupConv2d(2, 3, 3, algorithm=algorithm), torch.randn(1, 2, 4, 5, 5)
    with torch.no_grad():
        layer(x)
    kept = weakref.ref(KEEPERS[algorithm][0]._entries[layer.weight][-1])
    del layer
    gc.collect()
    assert kept() is None


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
