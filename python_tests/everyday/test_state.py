"""Networks that are saved, copied and taken up again, with whichever algorithm."""

import copy
import io
import pickle

import pytest
import torch
from networks import small_network

ALGORITHMS = ["auto", "irrep", "dense", "reference"]
X, Y = torch.randn(6, 1, 10, 10), torch.randn(6, 3)


def trained(network, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (network(X) - Y).square().mean().backward()
        optimizer.step()
    return network


def momentum(network):
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)


def through_a_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("after", ALGORITHMS)
@pytest.mark.parametrize("before", ALGORITHMS)
def test_training_goes_on_with_another_algorithm(before, after):
    """Parameters, statistics and the state of the optimizer; three steps and two are five."""
    whole = small_network("reference")
    trained(whole, momentum(whole), 5)
    network = small_network(before)
    optimizer = momentum(network)
    trained(network, optimizer, 3)

    other = small_network(after)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(through_a_file(network.state_dict()), assign=True)
    taken_up = momentum(other)
    taken_up.load_state_dict(through_a_file(optimizer.state_dict()))
    trained(other, taken_up, 2)
    for name, value in whole.state_dict().items():
        assert torch.allclose(other.state_dict()[name], value, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("algorithm", ["irrep", "dense"])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_after_use(algorithm, again):
    """What is kept of the weights stays with the original, and the copy goes its own way."""
    network = small_network(algorithm).eval()
    with torch.no_grad():
        want = network(X)
        other = again(network)
        assert torch.equal(other(X), want)
    trained(other, momentum(other), 1)
    with torch.no_grad():
        assert torch.equal(network(X), want) and not torch.allclose(other(X), want)


def test_state_of_another_shape_is_refused_by_name():
    with pytest.raises(RuntimeError, match="size mismatch for 4.weight"):
        small_network().load_state_dict({**small_network().state_dict(), "4.weight": torch.randn(4, 3, 8, 3, 3)})
