import pytest
import torch
from randomised import randomise_norms
from torch import nn

from gconv_ext import create_model, equivariance_error, exactness


@pytest.mark.parametrize("name, options, count", [
    ("p4cnn", dict(in_channels=3), 24_990),  # as published: images of three equal channels
    ("p4cnn", {}, 24_990 - 2 * 90),  # two channels less for the 9 taps of 10 fields
    ("z2cnn", {}, 25_210),
])  # fmt: skip
def test_parameter_counts(name, options, count):
    network = create_model(name, **options)
    assert sum(p.numel() for p in network.parameters()) == count
    assert network(torch.randn(2, options.get("in_channels", 1), 28, 28)).shape == (2, 10)


def test_sizes_of_the_published_run():
    """28 x 28 for two layers, 14 x 14 for four, 11 x 11 for the last."""
    rows = exactness(create_model("p4cnn"), 28).rows
    assert [row.output_size[0] for row in rows] == [28, 28, 14, 14, 14, 14, 14, 11, 1]


@pytest.mark.parametrize("name", ["p4cnn", "z2cnn"])
def test_layers(name):
    """ReLU and batch norm after each convolution, in this order, dropout of 0.3 after layers 1 to 5, pooling with stride 2
    after layer 2 (paper 3, section 4.2)."""
    network = create_model(name)
    layers = [getattr(network, f"layer{n}") for n in range(1, 8)]
    assert [[m.p for m in layer if isinstance(m, nn.Dropout)] for layer in layers] == [[0.3]] * 5 + [[]] * 2
    assert [n for n, layer in enumerate(layers, 1) if "MaxPool2d" in type(layer[-1]).__name__] == [2]
    assert all(isinstance(layer[1], nn.ReLU) and "BatchNorm2d" in type(layer[2]).__name__ for layer in layers)
    assert network.stages == tuple(f"layer{n}" for n in range(1, 8))


@pytest.mark.parametrize("size, exact", [(28, True), (27, False), (29, False), ((16, 18), True), ((16, 17), False)])
def test_invariant_to_the_bit_where_it_is_exact(size, exact):
    size = size if isinstance(size, tuple) else (size, size)
    x = torch.randn(2, 1, *size, dtype=torch.float64)
    network = randomise_norms(create_model("p4cnn", width=4, algorithm="irrep")).double()
    error = equivariance_error(network, x, "C4")
    assert (error.relative == 0).all() if exact else error.worst > 1e-8
    assert exactness(network, size).exact is exact
    if exact:
        assert (equivariance_error(network.float(), x.float(), "C4").relative == 0).all()
        dense = create_model("p4cnn", width=4, algorithm="dense")
        dense.load_state_dict(network.state_dict())
        assert 0 < equivariance_error(dense.eval(), x.float(), "C4").worst < 1e-5


def test_compiles_into_one_graph():
    network, x = create_model("p4cnn", width=2, algorithm="irrep"), torch.randn(2, 1, 16, 16)
    compiled = torch.compile(network.eval(), fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x), network(x), atol=1e-6)


def test_options():
    network = create_model("p4cnn", num_classes=3, width=2, algorithm="dense")
    assert network(torch.randn(2, 1, 9, 9)).shape == (2, 3) and network.layer2[0].algorithm == "dense"
    with pytest.raises(ValueError, match="algorithm must be 'auto'"):
        create_model("z2cnn", algorithm="dense")
    with pytest.raises(ValueError, match="x must have 1 channels"):
        network(torch.ones(1, 2, 8, 8))
