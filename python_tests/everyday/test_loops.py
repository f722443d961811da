"""What people put around a training step: automatic mixed precision, checkpointing of activations, averaged weights."""

import copy

import pytest
import torch
from networks import small_network
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

X, Y = torch.randn(8, 1, 10, 10), torch.arange(8) % 3


def loss(network):
    return torch.nn.functional.cross_entropy(network(X).float(), Y)


def gradients(network):
    return {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("algorithm", ["irrep", "dense"])
def test_autocast_with_a_grad_scaler(algorithm):
    """A scale that is a power of two changes no bit of the training, a step with an infinite gradient is left out, and
    the loss falls."""
    network, plain = small_network(algorithm), small_network(algorithm)
    optimizer, scaler = torch.optim.SGD(network.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=2.0**12)
    plain_optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        plain_optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            value, plain_value = loss(network), loss(plain)
        scaler.scale(value).backward()
        plain_value.backward()
        scaled = copy.deepcopy(gradients(network))
        scaler.unscale_(optimizer)
        for name, gradient in gradients(plain).items():
            assert torch.equal(gradients(network)[name], gradient), name
            assert torch.equal(scaled[name], gradient * 2.0**12), name
        scaler.step(optimizer)
        scaler.update()
        plain_optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.9 * losses[0]

    before = copy.deepcopy(network.state_dict())
    scaler.scale(loss(network) * float("inf")).backward()
    scaler.step(optimizer)
    after = {name: value for name, value in network.state_dict().items() if name in gradients(network)}
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("algorithm", ["irrep", "dense"])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradient_checkpointing(algorithm, autocast):
    """The same bits as without it."""
    plain, network = small_network(algorithm, norm=False), small_network(algorithm, norm=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss(plain).backward()
        loss(lambda x: checkpoint(network, x, use_reentrant=False)).backward()
        for name, gradient in gradients(plain).items():
            assert torch.equal(gradients(network)[name], gradient), name
        network.zero_grad()
        loss(lambda x: checkpoint_sequential(network, 3, x, use_reentrant=False)).backward()
    for name, gradient in gradients(plain).items():
        assert torch.equal(gradients(network)[name], gradient), name


@pytest.mark.parametrize("algorithm", ["irrep", "dense"])
def test_averaged_weights(algorithm):
    """EMA: the average is what its equation says, computes with the weights that it has now, and takes new
    statistics."""
    network = small_network(algorithm)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    want = {}
    for _ in range(3):
        optimizer.zero_grad()
        loss(network).backward()
        optimizer.step()
        average.update_parameters(network)
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                want[name] = (want[name] + value) / 2 if name in want else value.clone()
        average.eval()
        with torch.no_grad():
            result = average(X)  # which keeps what it made of the weights
        by_hand = small_network("reference").eval()
        by_hand.load_state_dict(want, strict=False)
        assert torch.allclose(result, by_hand(X), atol=1e-5)
    for name, value in average.module.state_dict().items():
        assert name not in want or torch.allclose(value, want[name]), name
    update_bn([X], average)
    assert not torch.allclose(average.module[1].running_mean, want["1.running_mean"])
