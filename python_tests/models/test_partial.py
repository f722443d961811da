import pytest
import torch

from gconv_ext import create_model, equivariance_error, list_models


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name, options, parameters", [
    # About 468 k and 3.99 M, as published; θ in five and eight layers, and over E(2) a probability and a coordinate.
    ("partial_ckresnet", dict(partial=False), 467_786), ("partial_ckresnet", {}, 467_791),
    ("partial_ckresnet", dict(group="E2"), 467_791 + 5 + 5 * 32 + 2 * 16),
    ("partial_ckresnet", dict(group="T2"), 450_074),
    ("partial_cnn13", dict(partial=False), 3_994_410), ("partial_cnn13", {}, 3_994_418),
])  # fmt: skip
def test_parameter_counts(name, options, parameters):
    assert count(create_model(name, **options)) == parameters
    assert name in list_models()


@pytest.mark.parametrize("options, group, invariant", [
    (dict(partial=False), "C4", True), (dict(partial=False), "D4", False),
    (dict(partial=False, group="E2"), "D4", True), (dict(partial=False, group="D1"), "D1", True),
    (dict(partial=False, group="D1"), "C4", False), (dict(group="T2"), "C2", False),
    (dict(partial=True), "C4", True), (dict(partial=True, group="E2"), "D4", True),  # in eval mode so they start
    (dict(partial=False, ending="T2"), "C2", False), (dict(partial=False, ending="MLP"), "C2", False),
])  # fmt: skip
def test_invariance_of_ckresnet(options, group, invariant):
    elements = {} if options.get("group") in ("D1", "T2") else {"elements": 4}
    network = create_model("partial_ckresnet", width=4, kernel_size=3, **elements, **options).double()
    network(torch.randn(8, 1, 12, 12).double())  # statistics for the batch norms
    network.eval()
    worst = equivariance_error(network, torch.randn(2, 1, 12, 12).double(), group).worst
    assert worst < 1e-12 if invariant else worst > 1e-3


@pytest.mark.parametrize("group, name", [("SE2", "C4"), ("E2", "D4")])
def test_cnn13(group, name):
    options = dict(in_channels=1, num_classes=3, width=2, group=group, elements=4, partial=False)
    network = create_model("partial_cnn13", **options).double()
    x = torch.randn(8, 1, 12, 12).double()
    assert network(x).shape == (8, 3)
    network.eval()
    assert equivariance_error(network, x, name).worst < 1e-12 and network(x).std(0).min() > 0
    shapes = [convolution.out_channels for convolution in network.convolutions]
    assert shapes == [2] + [4] * 7 and network.pool.stride == 2


@pytest.mark.parametrize("name, options", [
    ("partial_ckresnet", dict(kernel_size=3, group="E2", elements=4)),
    ("partial_cnn13", dict(in_channels=1, elements=8, partial=False)),
])  # fmt: skip
def test_algorithms_agree(name, options):
    """In eval mode; the elements contain D4 and C4."""
    network = create_model(name, width=3, algorithm="reference", **options).double().eval()
    x = torch.randn(2, 1, 16, 16).double()
    with torch.no_grad():
        want = network(x)
        for algorithm in ("auto", "dense", "irrep"):
            other = create_model(name, width=3, algorithm=algorithm, **options).double().eval()
            other.load_state_dict(network.state_dict())
            assert torch.allclose(other(x), want, rtol=1e-10, atol=1e-12)


def test_gradients_reach_every_parameter():
    network = create_model("partial_ckresnet", width=2, kernel_size=3, group="E2", elements=3).double()
    for name, p in network.named_parameters():
        if name.endswith("theta"):
            p.data.fill_(0.8)
        if name.endswith("logit"):
            p.data.fill_(0.3)
    network(torch.randn(4, 1, 12, 12).double()).square().sum().backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.ne(0).any()}
    missed = {name for name, _ in network.named_parameters()} - reached
    assert all(name.endswith("logit") for name in missed)  # a draw that left the mirrors out has nothing to say of them
    assert any(name.endswith("logit") for name in reached)


def elements_seen(network, x):
    """Elements of each convolution's result."""
    seen, (one, two) = [], network.blocks
    convolutions = [one.conv1, one.conv2, two.conv1, two.conv2, network.last]
    count = lambda module, args, result: seen.append(result.features.shape[2])
    handles = [convolution.register_forward_hook(count) for convolution in convolutions]
    network(x)
    for handle in handles:
        handle.remove()
    return seen


def test_sizes_on_digits():
    """28 pixels are pooled to 14 and 7, and the last convolution leaves one."""
    network, sizes = create_model("partial_ckresnet", width=1, elements=1).eval(), []
    for module in (network.lift, network.blocks[0].conv1, network.blocks[1].conv1, network.last):
        module.register_forward_hook(lambda module, args, result: sizes.append(tuple(result.features.shape[3:])))
    assert network(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    assert sizes == [(28, 28), (14, 14), (7, 7), (1, 1)]


def test_monotonic_subsets():
    x, thetas = torch.randn(2, 1, 12, 12), (1.0, 0.5, 0.9, 0.2, 0.6)
    for monotonic, want in ((False, [8, 4, 8, 2, 5]), (True, [8, 4, 4, 2, 2])):
        network = create_model("partial_ckresnet", width=2, kernel_size=3, monotonic=monotonic)
        for (_, p), theta in zip((item for item in network.named_parameters() if item[0].endswith("theta")), thetas):
            p.data.fill_(theta)
        assert elements_seen(network, x) == elements_seen(network.eval(), x) == want


def test_endings():
    """T2: the last convolution has one element, of the mean over the others; MLP: a linear layer over the elements."""
    options = dict(width=2, kernel_size=3, group="E2", elements=4, partial=False)
    x = torch.randn(2, 1, 12, 12)
    network = create_model("partial_ckresnet", ending="T2", **options).eval()
    assert elements_seen(network, x) == [8, 8, 8, 8, 1]
    lifted = network.blocks(network.lift(x))
    moved = lifted._replace(features=lifted.features.flip(2))
    assert torch.allclose(network.last(lifted).features, network.last(moved).features, atol=1e-6)

    network = create_model("partial_ckresnet", ending="MLP", **options).eval()
    network.mixed.weight.data.fill_(0), network.mixed.bias.data.fill_(0.5)
    network.mixed.weight.data[0, 3] = 2
    with torch.no_grad():
        features = network.lift(x).apply(lambda f: network.lift_pool(network.lift_norm(f)).relu())
        features = network.last(network.blocks(features)).apply(lambda f: network.last_norm(f).relu()).features
        want = network.classifier(2 * features[:, :, 3].amax((-2, -1)) + 0.5)
        assert torch.allclose(network(x), want, atol=1e-5)


@pytest.mark.parametrize("make, error_type, message", [
    (lambda: create_model("partial_ckresnet", group="p4"), ValueError, "group must be one of 'T2', 'SE2', 'D1', 'E2'"),
    (lambda: create_model("partial_ckresnet", group="T2", elements=4), ValueError, "elements counts rotations"),
    (lambda: create_model("partial_ckresnet", ending="mean"), ValueError, "ending must be one of 'max', 'T2', 'MLP'"),
    (lambda: create_model("partial_ckresnet", ending="MLP"), ValueError, "ending must be 'max' where partial=True"),
    (lambda: create_model("partial_ckresnet", width=0), ValueError, "width must be at least 1"),
    (lambda: create_model("partial_cnn13", num_classes=0), ValueError, "num_classes must be at least 1"),
    (lambda: create_model("partial_cnn13", depth=3), TypeError, "partial_cnn13 has no option 'depth'"),
    (lambda: create_model("partial_cnn13", width=2)(torch.ones(1, 1, 8, 8)), ValueError, "x must have 3 channels"),
    (lambda: create_model("partial_ckresnet", width=2)(torch.ones(1, 1, 8, 8)), ValueError, "x is too small: H = 2"),
])  # fmt: skip
def test_bad_arguments(make, error_type, message):
    with pytest.raises(error_type) as error:
        make()
    assert message in str(error.value)
