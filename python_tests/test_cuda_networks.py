"""Training steps of whole networks on a GPU against the reference on the CPU."""

import pytest
import torch
import torch.nn.functional as F

from gconv_ext import create_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU; csrc/test_emulated_gpu.py runs these tests without")
NETWORKS = {"noise_p4_cnn": 6, "noise_relaxed_p4_cnn": 6, "noise_p4m_cnn": 3, "p4cnn": 8, "p4_resnet18": 23}  # fields; of those of 23, 46 and 92 maps are copied


def step(network, x, labels):
    """The gradients to all parameters, in one row, in float64."""
    loss = F.cross_entropy(network(x).double(), labels)
    return torch.cat([gradient.double().flatten().cpu() for gradient in torch.autograd.grad(loss, list(network.parameters()))])


@pytest.mark.parametrize("algorithm", ["irrep", "fused"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients(name, algorithm):
    """In float64, where no number near 0 falls on the other side of ReLU, and under autocast to bfloat16 as close as the reference
    comes."""
    reference = create_model(name, algorithm="reference", width=NETWORKS[name])
    network = create_model(name, algorithm=algorithm, width=NETWORKS[name])
    network.load_state_dict(reference.state_dict())
    network.cuda()
    for layer in (*reference.modules(), *network.modules()):
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0
    x, labels = torch.randn(4, reference.in_channels, 17, 17), torch.randint(10, (4,))
    with torch.autocast("cpu", torch.bfloat16):
        peer = step(reference, x, labels)
    with torch.autocast("cuda", torch.bfloat16):
        rounded = step(network, x.cuda(), labels.cuda())
    x = x.double()
    got, want = step(network.double(), x.cuda(), labels.cuda()), step(reference.double(), x, labels)
    error, allowed = (rounded - want).norm() / want.norm(), (peer - want).norm() / want.norm()
    assert (got - want).norm() <= 1e-9 * want.norm()
    assert error <= 2 * allowed


@pytest.mark.parametrize("algorithm", ["irrep", "fused"])
@pytest.mark.parametrize("name", ["noise_p4m_cnn", "noise_relaxed_p4_cnn"])
def test_compiled(name, algorithm):
    """In one graph, under autocast: the same bits."""
    network = create_model(name, algorithm=algorithm, width=4).cuda()
    x, labels = torch.randn(2, network.in_channels, 9, 9).cuda(), torch.tensor([1, 2]).cuda()
    torch._dynamo.reset()
    with torch.autocast("cuda", torch.bfloat16):
        eager = step(network, x, labels)
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(F.cross_entropy(compiled(x).double(), labels), parameters)
    assert torch.equal(torch.cat([gradient.double().flatten().cpu() for gradient in gradients]), eager)
