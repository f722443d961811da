"""torch.compile with its most thorough mode, and one graph for inputs of any size."""

import pytest
import torch
from networks import small_network

from gconv_ext import nn


def compare(network, compiled_network, compiled, inputs):
    """Forward and backward, without compiling anew."""
    with torch._dynamo.config.patch(error_on_recompile=True):
        for x in inputs:
            want, got = network(x), compiled(x)
            assert torch.allclose(got, want, atol=1e-5)
            want.square().sum().backward(), got.square().sum().backward()
    for (name, p), q in zip(network.named_parameters(), compiled_network.parameters()):
        assert torch.allclose(p.grad, q.grad, atol=1e-4, rtol=1e-3), name


def test_max_autotune_with_dynamic_batches():
    torch._dynamo.reset()
    eager, network = small_network(norm=False), small_network(norm=False)
    inputs = [torch.randn(batch, 1, 8, 8) for batch in (4, 2, 7)]
    torch._dynamo.mark_dynamic(inputs[0], 0)
    compare(eager, network, torch.compile(network, mode="max-autotune", fullgraph=True), inputs)


@pytest.mark.parametrize("lifting", [True, False])
def test_auto_with_any_size(lifting):
    """The choice between algorithms is made of sizes that are symbols while the graph is captured."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    kind, elements = (nn.LiftingConv2d, ()) if lifting else (nn.GroupConv2d, (4,))
    layers = [kind(8, 8, 3, padding=1) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    inputs = [torch.randn(batch, 8, *elements, *size) for batch, size in ((3, (16, 17)), (2, (18, 22)))]
    compare(*layers, torch.compile(layers[1], backend="aot_eager", fullgraph=True, dynamic=True), inputs)
