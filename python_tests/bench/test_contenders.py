"""The contenders that are made from a whole network."""

import pytest
import torch
import torch.nn.functional as F

from gconv_ext import create_model
from gconv_ext.bench.cases import NETWORKS
from gconv_ext.bench.contenders import PARTS, convolutions, from_conv2d, training_steps
from gconv_ext.nn import GroupConv2d, LiftingConv2d


@pytest.mark.parametrize("name", NETWORKS)
def test_convolutions_alone_are_those_of_the_network(name, monkeypatch):
    """Each layer's gradients, from the input and the gradient that it was prepared with, are those of the whole step."""
    network = create_model(name)
    x, labels = torch.randn(2, 1, 8, 8), torch.tensor([3, 7])
    convolve = convolutions(network, x, labels)
    found, grad = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *arguments: found.append(grad(*arguments)))
    convolve()
    F.cross_entropy(network(x), labels).backward()
    assert len(found) == len(network.features)
    for layer, gradients in zip(network.features, found):
        parameters = list(layer.parameters())
        assert len(gradients) == len(parameters) + (layer is not network.features[0])
        for got, parameter in zip(gradients[-len(parameters):], parameters):
            assert torch.allclose(got, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name, options", [("noise_relaxed_p4_cnn", {}), ("p4m_resnet18", {"width": 2})])
def test_the_copy_from_conv2d_computes_the_same(name, options):
    network = create_model(name, **options)
    x = torch.randn(2, network.in_channels, 16, 16)
    copy = from_conv2d(network)
    assert not any(isinstance(module, (GroupConv2d, LiftingConv2d)) for module in copy.modules())
    assert torch.allclose(copy(x), network(x), rtol=1e-3, atol=1e-4)


def test_training_steps_run():
    steps = training_steps("noise_p4m_cnn")
    assert set(steps) == {"auto", "reference", "dense", "irrep", "conv2d channels_last", *PARTS}
    for step in steps.values():
        step()
