import pytest
import torch

from gconv_ext import create_model, equivariance_error, list_models

COUNTS = {"noise_plain_cnn": 25750, "noise_p4_cnn": 25400, "noise_relaxed_p4_cnn": 27544}  # as paper 1 states them
OUR_COUNTS = {"noise_p4m_cnn": 24839, "noise_relaxed_p4m_cnn": 24542, "noise_relaxed_translation_cnn": 25852}
GROUP_NETWORKS = ["noise_p4_cnn", "noise_p4m_cnn", "noise_relaxed_p4_cnn", "noise_relaxed_p4m_cnn"]


@pytest.mark.parametrize("name, count", [*COUNTS.items(), *OUR_COUNTS.items()])
def test_parameter_counts(name, count):
    network = create_model(name)
    assert sum(p.numel() for p in network.parameters()) == count
    assert network(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    assert name in list_models()


@pytest.mark.parametrize("name, group, invariant", [
    ("noise_plain_cnn", "C4", False), ("noise_p4_cnn", "C4", True), ("noise_p4_cnn", "D4", False), ("noise_p4m_cnn", "D4", True),
    ("noise_relaxed_p4_cnn", "C4", True), ("noise_relaxed_p4_cnn", "D4", False), ("noise_relaxed_p4m_cnn", "D4", True),
])  # fmt: skip
def test_invariance(name, group, invariant):
    network = create_model(name).double()
    with torch.no_grad():  # make the features matter as much as the classifier's bias
        network.classifier.weight.mul_(100)
    worst = equivariance_error(network, torch.randn(2, 1, 12, 12).double(), group).worst
    assert worst < 1e-12 if invariant else worst > 1e-3


@pytest.mark.parametrize("name", GROUP_NETWORKS)
def test_algorithms_agree(name):
    """Logits, and the gradients of every parameter."""
    network, x = create_model(name, algorithm="reference").double(), torch.randn(2, 1, 9, 9).double()
    want = network(x)
    want_gradients = torch.autograd.grad(want.square().sum(), list(network.parameters()))
    for algorithm in ("auto", "dense", "irrep"):
        other = create_model(name, algorithm=algorithm).double()
        other.load_state_dict(network.state_dict())
        got = other(x)
        assert torch.allclose(got, want, rtol=1e-10)
        for g, w in zip(torch.autograd.grad(got.square().sum(), list(other.parameters())), want_gradients):
            assert torch.allclose(g, w, rtol=1e-10, atol=1e-10 * w.abs().max().item())


@pytest.mark.parametrize("name", GROUP_NETWORKS)
def test_training_is_the_same_by_every_algorithm(name):
    """Ten steps in float64, from weights at which they change the loss: only rounding tells the paths apart."""
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.rand(4, 1, 9, 9, generator=generator).double(), torch.arange(4)
    trained = []
    for algorithm in ("reference", "dense", "irrep"):
        torch.manual_seed(1)
        network = create_model(name, width=3, algorithm=algorithm).double()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(x), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        trained.append(torch.cat([torch.tensor(losses).double(), *(p.detach().flatten() for p in network.parameters())]))
    assert trained[0][9] < 0.9 * trained[0][0]
    for other in trained[1:]:
        torch.testing.assert_close(other, trained[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name, group", [("noise_relaxed_p4_cnn", "C4"), ("noise_relaxed_p4m_cnn", "D4")])
@pytest.mark.parametrize("relax_on", ["output", "input"])
def test_relaxed_weights_break_the_invariance(name, group, relax_on):
    network = create_model(name, relax_on=relax_on).double()
    assert network.equivariance_penalty().item() == 0
    with torch.no_grad():
        network.classifier.weight.mul_(100)
        for layer in network.features:
            torch.nn.init.normal_(layer.relaxed_weight)
    assert equivariance_error(network, torch.randn(2, 1, 12, 12).double(), group).relative[1:].min() > 1e-3
    penalty = network.equivariance_penalty()
    assert penalty.item() == pytest.approx(sum(layer.equivariance_penalty().item() for layer in network.features))


def test_relaxed_translation_starts_as_a_plain_network_and_can_leave():
    """With all relaxed weights 1/L, each layer is a planar convolution with the summed bank."""
    network = create_model("noise_relaxed_translation_cnn", input_size=9).double()
    x = torch.randn(2, 1, 9, 9).double()
    features = x
    for layer in network.features:
        bank = layer.weight.sum(0) * layer.relaxed_weight[0, 0, 0]
        features = torch.nn.functional.conv2d(features, bank, padding=1).relu()
    want = network.classifier(features.mean((2, 3)))
    assert torch.allclose(network(x), want, rtol=1e-10) and network.equivariance_penalty().item() == 0
    for layer in network.features:
        torch.nn.init.normal_(layer.relaxed_weight)
    assert not torch.allclose(network(x), want, rtol=1e-3) and network.equivariance_penalty().item() > 0
    with pytest.raises(ValueError, match="x must give output_size = \\(9, 9\\)"):
        network(torch.randn(1, 1, 10, 10).double())


def test_options():
    network = create_model("noise_p4_cnn", in_channels=3, num_classes=5, width=4, algorithm="reference")
    assert network(torch.randn(2, 3, 9, 9)).shape == (2, 5)
    assert network.features[1].algorithm == "reference" and network.features[1].weight.shape == (4, 4, 4, 3, 3)
    assert create_model("noise_plain_cnn", width=3).equivariance_penalty().item() == 0


@pytest.mark.parametrize(
    "make, error_type, message",
    [
        (lambda: create_model("resnet"), ValueError, "unknown model 'resnet'; expected one of noise_plain_cnn"),
        (lambda: create_model("noise_p4_cnn", depth=3), TypeError, "noise_p4_cnn has no option 'depth'; it has in_channels"),
        (lambda: create_model("noise_plain_cnn", algorithm="dense"), ValueError, "algorithm must be 'auto'"),
        (lambda: create_model("noise_p4_cnn", width=0), ValueError, "out_channels must be at least 1"),
        (lambda: create_model("noise_p4_cnn")(torch.ones(1, 2, 8, 8)), ValueError, "x must have 1 channels"),
        (lambda: create_model("noise_p4_cnn")(torch.ones(1, 8, 8)), ValueError, "x must have 4 dimensions"),
    ],
)
def test_bad_arguments(make, error_type, message):
    with pytest.raises(error_type) as error:
        make()
    assert message in str(error.value)
