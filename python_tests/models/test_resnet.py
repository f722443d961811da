import pickle

import pytest
import torch
from randomised import randomise_norms

from gconv_ext import create_model, equivariance_error

GROUPS = {"p4_resnet18": "C4", "p4m_resnet18": "D4", "p4_resnet44": "C4", "p4m_resnet44": "D4"}


def by_hand(order, in_channels, width, blocks, classes=10):
    """Parameters counted from the text: 3 x 3 kernels, 1 x 1 shortcuts where the fields double, no biases, two numbers
    a field for each norm."""
    total, fields = 9 * in_channels * width, width
    for stage, count in enumerate(blocks):
        out = width * 2**stage
        for block in range(count):
            total += 9 * order * (fields * out + out * out) + 2 * (fields + out)
            total += order * fields * out + 2 * out if fields != out else 0
            fields = out
    return total + 2 * fields + (fields + 1) * classes


@pytest.mark.parametrize("name, order, width, count, millions", [
    ("p4_resnet44", 4, 16, 2_632_026, "2.63"), ("p4_resnet18", 4, 32, 11_165_738, "11.17"),  # the published counts
    ("z2_resnet44", 1, 32, 2_636_458, "2.64"), ("z2_resnet18", 1, 64, 11_173_962, "11.17"),
    ("p4m_resnet44", 8, 12, 2_959_366, "2.96"), ("p4m_resnet18", 8, 23, 11_533_889, "11.53"),
])  # fmt: skip
def test_parameter_counts(name, order, width, count, millions):
    network = create_model(name)
    got = sum(p.numel() for p in network.parameters())
    assert got == count == by_hand(order, 3, width, (7, 7, 7) if "44" in name else (2, 2, 2, 2))
    assert f"{got / 1e6:.2f}" == millions


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_invariant_to_the_bit_where_it_is_exact(name, dtype):
    """33 x 33 is exact and 32 x 32 is not (paper 3); in eval mode, with the irrep algorithm, exact means to the bit."""
    network, group = randomise_norms(create_model(name, width=2, algorithm="irrep")).to(dtype), GROUPS[name]
    for size, exact in (((33, 33), True), ((33, 41), True), ((32, 32), False), ((33, 34), False)):
        x = torch.randn(2, 3, *size, dtype=dtype)
        with torch.no_grad():
            assert network(x).std() > 1e-3  # the logits depend on the image
        error = equivariance_error(network, x, group)
        assert (error.relative == 0).all() if exact else error.worst > 1e-3


@pytest.mark.parametrize("name", GROUPS)
def test_the_dense_algorithm_is_close(name):
    network = randomise_norms(create_model(name, width=2, algorithm="dense"))
    error = equivariance_error(network, torch.randn(2, 3, 33, 33), GROUPS[name])
    assert 0 < error.worst < 1e-5


@pytest.mark.parametrize("name", ["p4_resnet18", "p4m_resnet44"])
def test_algorithms_agree(name):
    """Logits and gradients, in training mode."""
    network, x = create_model(name, width=2, algorithm="reference").double(), torch.randn(3, 3, 9, 9).double()
    want = network(x)
    want_gradients = torch.autograd.grad(want.square().sum(), list(network.parameters()))
    for algorithm in ("auto", "dense", "irrep"):
        other = create_model(name, width=2, algorithm=algorithm).double()
        other.load_state_dict(network.state_dict())
        got = other(x)
        assert torch.allclose(got, want, rtol=1e-8)
        for g, w in zip(torch.autograd.grad(got.square().sum(), list(other.parameters())), want_gradients):
            assert torch.allclose(g, w, rtol=1e-7, atol=1e-8 * w.abs().max().item() + 1e-12)


@pytest.mark.parametrize("name, algorithm, format", [
    ("p4_resnet44", "irrep", torch.contiguous_format), ("z2_resnet44", "auto", torch.channels_last),
])  # fmt: skip
def test_the_memory_format_stays(name, algorithm, format):
    """From the image to the last stage: rows of pixels for irrep, channels last for PyTorch's convolution."""
    network, found = create_model(name, width=2, algorithm=algorithm).eval(), []
    for stage in network.stages:
        network.get_submodule(stage).register_forward_hook(lambda module, inputs, y: found.append(y))
    with torch.no_grad():
        network(torch.randn(2, 3, 33, 33))
    assert len(found) == 5 and all(y.is_contiguous(memory_format=format) for y in found)


def test_stages_and_options():
    network = create_model("p4m_resnet18", in_channels=1, num_classes=3, width=2, algorithm="dense")
    assert network.stages == ("stem", "stage1", "stage2", "stage3", "stage4", "last")
    assert network(torch.randn(2, 1, 17, 17)).shape == (2, 3)
    assert network.stage4[0].conv1.weight.shape == (16, 8, 8, 3, 3) and network.stage4[0].conv1.algorithm == "dense"
    assert not any(module.bias is not None for module in network.modules() if hasattr(module, "kernel_size"))
    again = pickle.loads(pickle.dumps(network.eval()))
    x = torch.randn(2, 1, 17, 17)
    assert torch.equal(again(x), network(x))


@pytest.mark.parametrize(
    "make, error_type, message",
    [
        (lambda: create_model("z2_resnet18", algorithm="irrep"), ValueError, "algorithm must be 'auto'"),
        (lambda: create_model("p4_resnet18", depth=3), TypeError, "p4_resnet18 has no option 'depth'; it has in_"),
        (lambda: create_model("p4_resnet44", width=0), ValueError, "out_channels must be at least 1"),
        (lambda: create_model("p4_resnet44", width=1)(torch.ones(1, 1, 9, 9)), ValueError, "x must have 3 channels"),
        (lambda: create_model("p4_resnet44", width=1)(torch.ones(3, 9, 9)), ValueError, "x must have 4 dimensions"),
    ],
)
def test_bad_arguments(make, error_type, message):
    with pytest.raises(error_type) as error:
        make()
    assert message in str(error.value)
