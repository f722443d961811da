import pytest
import torch

from gconv_ext import create_model, equivariance_error, list_models

KINDS = [
    ("T2", 1, None), ("T2", 1, "translation"), ("SE2", 4, None), ("SE2", 4, "rotation"), ("SE2", 4, "translation"),
    ("SE2", 4, "both"), ("SE2", 8, "rotation"), ("SE2", 16, "rotation"),
]  # fmt: skip


def make(kind, **options):
    group, elements, soft = kind
    options = dict(in_channels=1, num_classes=3, width=2, kernel_size=3) | options
    return create_model("nonstationary_ckresnet", group=group, elements=elements, soft=soft, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_gradients_and_frequencies(kind):
    network = make(kind, learn_soft_frequency=True)
    assert "nonstationary_ckresnet" in list_models()
    logits = network(torch.randn(4, 1, 12, 12))
    assert logits.shape == (4, 3)
    # λ‖ω'‖²: 0 exactly where nothing is soft, else from every soft coordinate of seven layers.
    soft_axes = 2 * (kind[2] in ("translation", "both")) + (kind[2] in ("rotation", "both"))
    penalty = network.soft_frequency_penalty()
    assert torch.allclose(penalty, torch.tensor(7 * soft_axes * 0.25))
    (logits.square().sum() + 0.1 * penalty).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if name.endswith("absolute.frequency"):
            assert (parameter.grad != 0).sum() == soft_axes, name


def worst_error(network):
    network.double()(torch.randn(8, 1, 12, 12).double())  # statistics for the batch norms
    network.eval()
    return equivariance_error(network, torch.randn(2, 1, 12, 12).double(), "C4").worst


@pytest.mark.parametrize("kind", KINDS)
def test_invariance_to_quarter_turns(kind):
    """Exact where nothing is soft, or ω' is 0; never where it is soft, nor over T(2)."""
    worst = worst_error(make(kind))
    assert worst < 1e-12 if kind[0] == "SE2" and kind[2] is None else worst > 1e-3
    if kind[0] == "SE2":
        assert worst_error(make(kind, soft_frequency=0.0)) < 1e-12


def test_the_sizes_of_the_paper():
    network = create_model("nonstationary_ckresnet", elements=4)
    shapes = []
    for layer in (network.lift, network.blocks[0].conv2, network.blocks[1].conv2, network.last):
        layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.features.shape)))
    with torch.no_grad():
        assert network(torch.randn(1, 3, 32, 32)).shape == (1, 10)
    assert shapes == [(1, 32, 4, 32, 32), (1, 32, 4, 16, 16), (1, 64, 4, 8, 8), (1, 64, 4, 2, 2)]


@pytest.mark.parametrize("kind, algorithms", [
    (("SE2", 4, "both"), ("auto", "contract")), (("SE2", 8, None), ("auto", "dense", "irrep")),
    (("SE2", 8, "rotation"), ("auto", "dense")),
])  # fmt: skip
def test_algorithms_agree(kind, algorithms):
    network, x = make(kind, algorithm="reference").double().eval(), torch.randn(2, 1, 12, 12).double()
    with torch.no_grad():
        want = network(x)
        for algorithm in algorithms:
            other = make(kind, algorithm=algorithm).double().eval()
            other.load_state_dict(network.state_dict())
            assert torch.allclose(other(x), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options, message", [
    (dict(group="E2"), "group must be 'T2' or 'SE2', got 'E2'"),
    (dict(group="T2"), "soft must be 'translation' or None for group='T2'"),
    (dict(soft="both", algorithm="irrep"), "algorithm must be one of 'auto', 'reference', 'contract', 'triton_con"),
    (dict(elements=0), "elements must be at least 1"),
])  # fmt: skip
def test_refusals(options, message):
    with pytest.raises(ValueError) as raised:
        create_model("nonstationary_ckresnet", **options)
    assert message in str(raised.value)
    with pytest.raises(ValueError, match="x must have 3 channels"):
        create_model("nonstationary_ckresnet", width=2, kernel_size=3)(torch.randn(1, 1, 12, 12))
