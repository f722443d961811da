"""torch.export and AOTInductor of the layers themselves; torch.export, ONNX and TorchScript of the plain copies."""

import io
import subprocess
import sys

import pytest
import torch
from randomised import randomise_norms
from test_deploy import LAYERS, make

from gconv_ext import create_model, nn, to_conv2d

BATCH = {0: torch.export.Dim("batch")}
# One of each kind: each takes a second to capture.
SOME = (
    "lifting", "group", "relaxed input", "transposed", "separable", "translation group", "nonstationary soft",
    "batch norm", "layer norm", "coset mean", "spatial max", "max pool", "average pool", "max blur",
    "bilinear", "residual",
)  # fmt: skip


class Bundle(torch.nn.Module):
    """Many layers side by side: exported once, which takes seconds."""

    def __init__(self, layers):
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        results = []
        for index, layer in enumerate(self.layers):
            results.append(layer(inputs[index]))
        return results


def bundle(names, plain):
    """Layers or their copies; an input to export them with, and another of three times the batch."""
    layers, inputs = zip(*(make(name, torch.float32) for name in names))
    more = [torch.cat([x, x.flip(1), 2 * x]) for x in inputs]
    return Bundle(map(to_conv2d, layers) if plain else layers).eval(), list(inputs), more


def assert_close(got, want):
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape and (one - other).abs().max() <= 1e-5 * other.abs().max()


def targets(program):
    return {str(node.target) for node in program.graph.nodes}


def read_back(program):
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def test_layers_survive_torch_export():
    layers, inputs, more = bundle(SOME, plain=False)
    program = torch.export.export(layers, (inputs,), dynamic_shapes=([BATCH] * len(inputs),))
    assert {"gconv_ext.irrep_fprop.default", "gconv_ext.expand_filter.default"} <= targets(program)
    for exported in (program, read_back(program)):
        assert_close(exported.module()(more), layers(more))


@pytest.mark.parametrize("algorithm, op", [("irrep", "irrep_fprop"), ("dense", "expand_filter"), ("reference", None)])
def test_an_exported_network_keeps_its_algorithm(algorithm, op):
    network, x = create_model("noise_relaxed_p4_cnn", width=2, algorithm=algorithm).eval(), torch.randn(2, 1, 9, 9)
    program = read_back(torch.export.export(network, (x,), dynamic_shapes=(BATCH,)))
    ours = {target for target in targets(program) if "gconv_ext" in target}
    assert ours == ({f"gconv_ext.{op}.default"} if op else set())
    x = torch.randn(5, 1, 9, 9)
    assert torch.allclose(program.module()(x), network(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [
    lambda: (nn.NonstationaryGroupConv2d(2, 3, 3, soft="both", padding=1), torch.randn(2, 2, 4, 9, 9)),
    lambda: (
        create_model("partial_ckresnet", width=2, elements=4, kernel_size=3, partial=False), torch.randn(2, 1, 12, 12)),
], ids=["soft translation", "sampled elements"])  # fmt: skip
def test_what_has_no_copy_survives_torch_export(make):
    network, x = make()
    program = torch.export.export(network.eval(), (x,), dynamic_shapes=(BATCH,))
    x = torch.cat([x, 2 * x])
    assert torch.allclose(program.module()(x), network(x), rtol=1e-5, atol=1e-6)


def test_aot_inductor(tmp_path):
    """A network of the compiled ops as a shared library."""
    network = torch.nn.Sequential(
        nn.LiftingConv2d(1, 2, 3, padding=1, algorithm="irrep"),
        nn.RelaxedGroupConv2d(2, 2, 3, algorithm="dense", num_filter_banks=2, activation="relu"), nn.GroupPool(),
    ).eval()  # fmt: skip
    program = torch.export.export(network, (torch.randn(2, 1, 8, 8),), dynamic_shapes=(BATCH,))
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "network.pt2"))
    x = torch.randn(5, 1, 8, 8)
    assert torch.allclose(torch._inductor.aoti_load_package(package)(x), network(x), rtol=1e-5, atol=1e-6)


WITHOUT_PACKAGE = """
import sys, torch
sys.modules["gconv_ext"] = None  # importing it fails
inputs, want = torch.load(sys.argv[2])
for one, other in zip(torch.export.load(sys.argv[1]).module()(inputs), want, strict=True):
    assert torch.equal(one, other)
"""


def test_an_exported_copy_needs_no_package(tmp_path):
    layers, inputs, more = bundle(SOME, plain=True)
    program = torch.export.export(layers, (inputs,), dynamic_shapes=([BATCH] * len(inputs),))
    files = [str(tmp_path / name) for name in ("program.pt2", "expected.pt")]
    torch.export.save(program, files[0])
    torch.save((more, layers(more)), files[1])
    done = subprocess.run([sys.executable, "-c", WITHOUT_PACKAGE, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def in_onnxruntime(network, inputs, dynamic_shapes):
    """A function that runs the network there."""
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(network, (inputs,), dynamo=True, dynamic_shapes=(dynamic_shapes,), verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*inputs):
        results = session.run(None, {name: x.numpy() for name, x in zip(names, inputs)})
        return [torch.from_numpy(y) for y in results]

    return run


def test_copies_run_in_onnxruntime():
    layers, inputs, more = bundle(LAYERS, plain=True)
    assert_close(in_onnxruntime(layers, inputs, [BATCH] * len(inputs))(*more), layers(more))


@pytest.mark.parametrize("name", ["p4m_resnet18", "noise_relaxed_p4_cnn"])
def test_networks_run_in_onnxruntime(name):
    network = randomise_norms(create_model(name, width=2))
    x = torch.randn(2, network.in_channels, 17, 17)
    run, x = in_onnxruntime(to_conv2d(network), x, BATCH), torch.cat([x, x.flip(-1), 2 * x])
    assert torch.allclose(run(x)[0], network(x), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("way", ["trace", "script"])
def test_torch_script(way):
    layers, inputs, more = bundle(SOME, plain=True)
    scripted = torch.jit.trace(layers, (inputs,)) if way == "trace" else torch.jit.script(layers)
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    assert_close(torch.jit.load(file)(more), layers(more))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("called_before", [False, True])
def test_torch_script_of_the_fast_layers(called_before):
    """Traced without gradients, also where plans and transformed weights of the same call are kept."""
    network = torch.nn.Sequential(
        nn.LiftingConv2d(2, 3, 3, padding=1, algorithm="irrep", activation="relu"), nn.GroupConv2d(3, 2, 3, algorithm="irrep")
    ).eval()
    x, more = torch.randn(2, 2, 7, 6), torch.randn(3, 2, 9, 9)
    file = io.BytesIO()
    with torch.no_grad():
        if called_before:
            network(x)
        torch.jit.save(torch.jit.trace(network, (x,)), file)
        file.seek(0)
        loaded = torch.jit.load(file)
        assert torch.equal(loaded(x), network(x)) and torch.equal(loaded(more), network(more))
        for parameter, same in zip(loaded.parameters(), network.parameters()):
            same.copy_(parameter.mul_(2))
        assert torch.equal(loaded(more), network(more))
