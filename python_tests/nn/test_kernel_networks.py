import math

import pytest
import torch
import torch.nn.functional as F

from gconv_ext.nn import KernelNetwork

PLACES = torch.rand(7, 5, 3, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("kind, activation", [
    ("siren", lambda x: torch.sin(4 * x)), ("relu", torch.relu), ("leaky_relu", F.leaky_relu), ("swish", F.silu),
])  # fmt: skip
def test_is_its_equation(kind, activation):
    network = KernelNetwork(3, 6, hidden=8, kind=kind, omega0=4.0, dtype=torch.float64)
    for p in network.parameters():
        torch.nn.init.normal_(p)
    (w1, b1), (w2, b2), (w3, b3) = ((network[i].weight, network[i].bias) for i in (0, 2, 4))
    want = activation(activation(PLACES @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
    got = network(PLACES)
    assert got.shape == (7, 5, 6) and torch.allclose(got, want, atol=1e-12)
    assert torch.autograd.gradcheck(network, PLACES[:1, :2].clone().requires_grad_(), fast_mode=True)


def test_siren_starts_as_sitzmann_et_al():
    network = KernelNetwork(3, 200, hidden=32, omega0=10.0)
    other = math.sqrt(6 / 32) / 10
    for layer, bound in zip((network[0], network[2], network[4]), (1 / 3, other, other)):
        assert layer.bias.eq(0).all() and 0.9 * bound < layer.weight.abs().max() <= bound
        assert abs(layer.weight.mean()) < 4.5 * bound / math.sqrt(3 * layer.weight.numel())


@pytest.mark.parametrize("options, message", [
    (dict(hidden=0), "hidden must be at least 1"), (dict(kind="tanh"), "kernel must be one of 'siren'"),
    (dict(omega0=-1), "omega0 must be positive"),
])  # fmt: skip
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        KernelNetwork(3, 2, **options)
