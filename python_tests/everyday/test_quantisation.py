"""There are no quantised kernels: layers stay as they are, quantised maps are refused, and the plain copy can be
quantised."""

import pytest
import torch
from networks import small_network

from gconv_ext import nn, to_conv2d

pytestmark = pytest.mark.filterwarnings("ignore")
quantization = pytest.importorskip("torch.ao.quantization", reason="PyTorch has moved it to torchao")
ENGINE = next(engine for engine in ("x86", "fbgemm", "qnnpack") if engine in torch.backends.quantized.supported_engines)
X = torch.randn(16, 1, 10, 10)


def quantised(network):
    """Eager-mode static quantisation, of what PyTorch knows how to quantise."""
    torch.backends.quantized.engine = ENGINE
    network = torch.nn.Sequential(quantization.QuantStub(), network, quantization.DeQuantStub()).eval()
    network.qconfig = quantization.get_default_qconfig(ENGINE)
    network = quantization.prepare(network)
    network(X)
    return quantization.convert(network)


def test_dynamic_quantisation_leaves_our_layers_alone():
    network = small_network().eval()
    got = quantization.quantize_dynamic(network, {torch.nn.Linear, nn.GroupConv2d})
    assert type(got[4]) is nn.GroupConv2d and torch.equal(got[4].weight, network[4].weight)
    assert "quantized" in type(got[-1]).__module__
    assert torch.allclose(got(X), network(X), atol=0.05)


def test_quantised_maps_are_refused():
    with pytest.raises(TypeError, match="x must have a real floating-point dtype, got torch.quint8; .*to_conv2d"):
        quantised(small_network())(X)
    layer, x = nn.GroupConv2d(1, 1, 3), torch.randn(1, 1, 4, 5, 5)
    with pytest.raises(TypeError, match="x must have a real floating-point dtype, got torch.qint8; .*to_conv2d"):
        layer(torch.quantize_per_tensor(x, 0.1, 0, torch.qint8))
    layer.weight = torch.nn.Parameter(torch.quantize_per_tensor(layer.weight.data, 0.1, 0, torch.qint8), False)
    with pytest.raises(TypeError, match="weight must have a real floating-point dtype, got torch.qint8; .*to_conv2d"):
        layer(x)


def test_the_plain_copy_can_be_quantised():
    network = torch.nn.Sequential(nn.LiftingConv2d(1, 4, 3, padding=1), nn.GroupConv2d(4, 4, 3, activation="relu"))
    got = quantised(to_conv2d(network))
    convolutions = [m for m in got.modules() if isinstance(m, torch.ao.nn.quantized.Conv2d)]
    assert len(convolutions) == 2
    want = network.eval()(X)
    assert (got(X) - want).abs().max() <= 0.1 * want.abs().max()
