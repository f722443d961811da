"""torch.compile with its most thorough mode, and batches of any size in one graph."""

import torch
from networks import small_network


def test_max_autotune_with_dynamic_batches():
    torch._dynamo.reset()
    eager, network = small_network(norm=False), small_network(norm=False)
    compiled = torch.compile(network, mode="max-autotune", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (4, 2, 7):
            x = torch.randn(batch, 1, 8, 8)
            want, got = eager(x), compiled(x)
            assert torch.allclose(got, want, atol=1e-5)
            want.square().sum().backward(), got.square().sum().backward()
    for (name, p), q in zip(eager.named_parameters(), network.parameters()):
        assert torch.allclose(p.grad, q.grad, atol=1e-4, rtol=1e-3), name
