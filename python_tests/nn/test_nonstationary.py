"""Paper 2's layers against their equation written out, the special cases of §4.1, and derivatives to everything."""

import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from gconv_ext import functional, nn, transform_feature_map, transform_image
from gconv_ext.contraction import contract

KINDS = [
    ("T2", 1, None), ("T2", 1, "translation"), ("SE2", 4, None), ("SE2", 4, "rotation"), ("SE2", 4, "translation"),
    ("SE2", 4, "both"), ("SE2", 8, None), ("SE2", 8, "rotation"), ("SE2", 16, None), ("SE2", 3, "both"),
]  # fmt: skip
SMALL = [kind for kind in KINDS if kind[1] <= 4]
DOUBLE = dict(dtype=torch.float64)


def make(lifting, kind, in_channels=2, out_channels=3, kernel_size=3, padding=1, **options):
    layer = nn.NonstationaryLiftingConv2d if lifting else nn.NonstationaryGroupConv2d
    made = layer(in_channels, out_channels, kernel_size, *kind, padding=padding, **DOUBLE | options)
    if made.bias is not None:
        torch.nn.init.normal_(made.bias)
    return made


def random_map(layer, size=(6, 5), batch=2):
    elements = () if layer._lifting else (layer.elements,)
    return torch.randn(batch, layer.in_channels, *elements, *size, dtype=layer.kernel.weight.dtype)


def written_out(layer, x):
    """The sum of the docstrings, one term at a time."""
    lifting, n, k, padding, stride = layer._lifting, layer.elements, layer.kernel_size, layer.padding, layer.stride
    x = x.unsqueeze(2) if lifting else x
    batch, _, in_elements, height, width = x.shape
    sizes = [(size + 2 * padding - k) // stride + 1 for size in (height, width)]
    y = torch.zeros(batch, layer.out_channels, n, *sizes, **DOUBLE)
    soft_rotation, soft_translation = layer.soft in ("rotation", "both"), layer.soft in ("translation", "both")

    def half_turns(index):
        index %= n
        return 2 * (index - n if 2 * index > n else index) / n

    for i in range(n):
        for j in range(in_elements):
            angle = 2 * math.pi * (i if lifting else j) / n
            for row in range(k):
                for column in range(k):
                    t = [(2 * at - (k - 1)) / max(k - 1, 1) for at in (row, column)]
                    a = [
                        -math.cos(angle) * t[0] - math.sin(angle) * t[1],
                        math.sin(angle) * t[0] - math.cos(angle) * t[1],
                    ]
                    a += [half_turns(i - j)] * (layer.group == "SE2" and not lifting)
                    for p in range(sizes[0]):
                        for q in range(sizes[1]):
                            at = (p * stride + row - padding, q * stride + column - padding)
                            if not (0 <= at[0] < height and 0 <= at[1] < width):
                                continue
                            longest = max(height, width) - 1
                            b = [
                                soft_translation * (2 * v - (size - 1)) / longest
                                for v, size in zip(at, (height, width))
                            ]
                            b += [soft_rotation * half_turns(i if lifting else j)] * (layer.group == "SE2")
                            k_oc = layer.kernel(torch.tensor(a, **DOUBLE), torch.tensor(b, **DOUBLE))
                            y[:, :, i, p, q] += x[:, :, j, at[0], at[1]] @ k_oc.t()
    return y + layer.bias[:, None, None, None]


@pytest.mark.parametrize("lifting", [True, False])
@pytest.mark.parametrize("kind", KINDS[:7])
def test_the_equation(kind, lifting):
    layer = make(lifting, kind, 1, 2, hidden_channels=5, num_features=3)
    x = random_map(layer, (4, 3), 1)
    with torch.no_grad():
        assert torch.allclose(layer(x), written_out(layer, x), atol=1e-12)


@pytest.mark.parametrize(
    "options", [dict(stride=2, padding=2), dict(kernel_size=2, padding=0), dict(kernel_size=4, padding=1, stride=3)]
)
@pytest.mark.parametrize("kind", [("T2", 1, "translation"), ("SE2", 4, None), ("SE2", 2, "both")])
def test_the_equation_of_other_sizes(kind, options):
    layer = make(False, kind, 1, 2, hidden_channels=4, num_features=3, **options)
    x = random_map(layer, (4, 5), 1)
    with torch.no_grad():
        assert torch.allclose(layer(x), written_out(layer, x), atol=1e-12)


@pytest.mark.parametrize("lifting", [True, False])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[2]])
def test_without_soft_frequency_it_is_the_strict_convolution(kind, lifting):
    """ω' = 0 equals the strict group convolution with the same rendered filter (Remark 2)."""
    soft = make(lifting, kind, soft_frequency=0.0)
    strict = make(lifting, (*kind[:2], None))
    strict.load_state_dict(soft.state_dict())
    x = random_map(soft)
    assert torch.allclose(soft(x), strict(x), atol=1e-12)
    for element in range(4 if kind[1] == 4 else 0):
        move = transform_image if lifting else transform_feature_map
        assert torch.allclose(soft(move(x, "C4", element)), transform_feature_map(soft(x), "C4", element), atol=1e-12)


def test_the_strict_convolution_over_c4_is_that_of_the_package():
    """Its rendered filter, handed to functional.group_conv2d: weight[o, c, w, s] = k((s, w)⁻¹)."""
    layer = make(False, ("SE2", 4, "both"), soft_frequency=0.0)
    x = random_map(layer)
    weight = torch.stack(
        [layer.kernel(layer.relative[0, w], torch.zeros(3, **DOUBLE)) for w in range(4)]
    )  # [w, t, o, c]
    weight = weight.permute(2, 3, 0, 1).unflatten(3, (3, 3))
    assert torch.allclose(layer(x), functional.group_conv2d(x, weight, layer.bias, group="C4", padding=1), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_without_any_frequency_it_is_pooling(kind):
    """ω = ω' = 0: the sum over taps and elements (Remark 3), mixed over the channels."""
    layer = make(False, kind, frequency=0.0, soft_frequency=0.0)
    x = random_map(layer)
    pooled = 9 * kind[1] * F.avg_pool2d(x.mean(2), 3, stride=1, padding=1)
    mixed = layer.kernel(layer.relative[0, 0, 0], layer.soft_axes)
    want = torch.einsum("oc,bchw->bohw", mixed, pooled) + layer.bias[:, None, None]
    assert torch.allclose(layer(x), want[:, :, None].expand(-1, -1, kind[1], -1, -1), atol=1e-12)


@pytest.mark.parametrize("kind", [("T2", 1, "translation"), ("SE2", 4, "both")])
def test_a_delta_kernel_is_the_pointwise_product(kind):
    """k(v⁻¹u, v) = δ(v⁻¹u) k'(v) (Remark 1): y(u) = k'(u) x(u)."""
    layer = make(False, kind, kernel_size=1, padding=0, bias=False)
    x = random_map(layer)
    hidden = layer.hidden_features(6, 5)  # [H, W, I, M, 1, D]
    same = torch.eye(kind[1], **DOUBLE)[:, :, None, None]
    got = contract(x, hidden * same, layer.kernel.weight)
    product = torch.einsum("pqiih,och->ocipq", hidden[:, :, :, :, 0], layer.kernel.weight)
    want = torch.einsum("ocipq,bcipq->boipq", product, x)
    assert torch.allclose(got, want, atol=1e-12)
    if kind[1] == 1:
        assert torch.allclose(layer(x), want, atol=1e-12)


def equivariance_error(layer, x, soft):
    """Of a quarter turn, or of a shift by one pixel on pixels that padding does not reach."""
    with torch.no_grad():
        y = layer(x)
        if soft == "rotation":
            moved = layer(transform_feature_map(x, "C4", 1)) - transform_feature_map(y, "C4", 1)
        else:
            moved = layer(x.roll(1, -1))[..., 2:-2] - y.roll(1, -1)[..., 2:-2]
    return (moved.norm() / y.norm()).item()


@pytest.mark.parametrize(
    "kind", [("T2", 1, "translation"), ("SE2", 4, "translation"), ("SE2", 4, "rotation"), ("SE2", 4, "both")]
)
def test_the_equivariance_error_grows_continuously_from_zero(kind):
    layer = make(False, kind)
    x, errors = random_map(layer, (8, 8)), []
    direction = layer.kernel.absolute.frequency.detach().clone()
    for scale in (0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1):
        layer.kernel.absolute.frequency.data = scale * direction
        errors.append(equivariance_error(layer, x, kind[2]))
    assert errors[0] < 1e-14
    assert all(a < b for a, b in zip(errors, errors[1:]))
    # Smooth in ω': ten times the frequency, ten times the error (a first derivative) where it is small.
    for small, large in zip(errors[1:-2], errors[2:-1]):
        assert 8 < large / small < 12
    assert errors[-1] > 1e-3


@pytest.mark.parametrize(
    "kind",
    [("T2", 1, "translation"), ("SE2", 4, "translation"), ("SE2", 4, "rotation"), ("SE2", 4, "both"), ("SE2", 4, None)],
)
def test_only_the_soft_coordinates_are_seen(kind):
    """Translation alone leaves quarter turns exact about the same pixel only if they move it nowhere; rotation alone
    leaves shifts exact."""
    layer = make(False, kind)
    x = random_map(layer, (8, 8))
    by_shift = equivariance_error(layer, x, "translation")
    assert (by_shift > 1e-3) if kind[2] in ("translation", "both") else (by_shift < 1e-14)
    frequency = layer.kernel.absolute.frequency
    assert [bool(f) for f in frequency] == [layer.soft_translation] * 2 + [kind[2] in ("rotation", "both")] * (
        kind[0] == "SE2"
    )


@pytest.mark.parametrize("lifting", [True, False])
@pytest.mark.parametrize("kind", SMALL)
def test_gradcheck(kind, lifting):
    """To the input and every parameter, ω and ω' included."""
    layer = make(
        lifting,
        kind,
        1,
        2,
        kernel_size=2,
        hidden_channels=3,
        num_features=2,
        learn_frequency=True,
        learn_soft_frequency=True,
    )
    names = [name for name, _ in layer.named_parameters()]
    assert {"kernel.stationary.frequency", "kernel.absolute.frequency", "kernel.weight", "bias"} <= set(names)
    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    x = random_map(layer, (3, 2), 1).requires_grad_()

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    assert gradcheck(run, [x, *values])
    grads = torch.autograd.grad(run(x, *values).pow(3).sum(), values)
    by_name = dict(zip(names, grads))
    assert by_name["kernel.stationary.frequency"].abs().min() > 0
    assert torch.equal(by_name["kernel.absolute.frequency"] != 0, layer.soft_axes != 0)


def test_learning_under_the_penalty_brings_equivariance_back():
    """Without another loss, λ‖ω'‖² takes ω' to 0; a layer that does not learn it keeps it."""
    layer = make(False, ("SE2", 4, "both"), learn_soft_frequency=True)
    assert torch.allclose(layer.soft_frequency_penalty(), torch.tensor(3 * 0.25, **DOUBLE))
    optimizer = torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        layer.soft_frequency_penalty().backward()
        optimizer.step()
    assert layer.soft_frequency_penalty() < 1e-8
    fixed = make(False, ("SE2", 4, "both"))
    assert not fixed.kernel.absolute.frequency.requires_grad and not fixed.kernel.stationary.frequency.requires_grad


@pytest.mark.parametrize(
    "kind", [("T2", 1, "translation"), ("SE2", 8, None), ("SE2", 4, "rotation"), ("SE2", 4, "both")]
)
def test_algorithms_agree(kind):
    layer = make(False, kind)
    x = random_map(layer)
    want = layer(x)
    for algorithm in ("contract", "reference") if layer.soft_translation else ("reference", "dense", "irrep"):
        layer.algorithm = algorithm
        assert torch.allclose(layer(x), want, atol=1e-12), algorithm


def test_the_kernel_starts_with_the_variance_of_conv2d():
    layer = nn.NonstationaryGroupConv2d(16, 64, 3, "SE2", 8, "both")
    values = layer.kernel(layer.relative, torch.rand(8, 8, 9, 3) - 0.5)
    fan_in = 16 * 8 * 9
    assert 0.8 < values.var() * 3 * fan_in < 1.25


@pytest.mark.parametrize(
    "kind", [("T2", 1, "translation"), ("SE2", 4, "rotation"), ("SE2", 8, None), ("SE2", 4, "both")]
)
def test_state_dict_pickle_and_dtypes(kind):
    layer = make(True, kind, 1, 2).float()
    x = random_map(layer)
    y = layer(x)
    other = make(True, kind, 1, 2).float()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), y) and torch.equal(pickle.loads(pickle.dumps(layer))(x), y)
    exact = layer.double()(x.double())
    low = layer.bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16 and (low - exact).abs().max() < 0.1 * exact.abs().max()
    assert str(layer).startswith("NonstationaryLiftingConv2d(\n  1, 2, kernel_size=3, group=")


@pytest.mark.parametrize(
    "kind", [("T2", 1, "translation"), ("SE2", 4, "rotation"), ("SE2", 8, None), ("SE2", 4, "both")]
)
def test_autocast(kind):
    lift, conv = make(True, kind, 1, 2).float(), make(False, kind, 2, 2).float()
    x = random_map(lift)
    want = conv(lift(x))
    with torch.autocast("cpu", torch.bfloat16):
        got = conv(lift(x))
    assert got.dtype == torch.bfloat16 and (got - want).abs().max() < 0.05 * want.abs().max()
    got.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in conv.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", [("T2", 1, "translation"), ("SE2", 4, "rotation"), ("SE2", 4, "both")])
def test_compile_fullgraph(kind):
    torch._dynamo.reset()
    network = torch.nn.Sequential(
        make(True, kind, 1, 2, learn_soft_frequency=True), torch.nn.ReLU(), make(False, kind, 2, 2)
    ).float()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for batch in (2, 3):
        x = random_map(network[0], batch=batch)
        want = network(x)
        assert torch.allclose(compiled(x), want, atol=1e-5)
    parameters = [p for p in network.parameters() if p.requires_grad]
    grads = [torch.autograd.grad(run(x).square().sum(), parameters) for run in (network, compiled)]
    for a, b in zip(*grads):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3 * a.abs().max())


BAD = {
    "group": (ValueError, dict(group="E2"), "group must be 'T2' or 'SE2', got 'E2'"),
    "soft": (ValueError, dict(soft="all"), "soft must be 'rotation', 'translation', 'both' or None, got 'all'"),
    "soft T2": (ValueError, dict(group="T2", soft="both"), "soft must be 'translation' or None for group='T2'"),
    "elements T2": (ValueError, dict(group="T2", soft=None, elements=4), "elements must be 1 for group='T2'"),
    "elements": (ValueError, dict(elements=0), "elements must be at least 1, got 0"),
    "channels": (TypeError, dict(in_channels=2.5), "in_channels must be an int, got float"),
    "kernel": (ValueError, dict(kernel_size=0), "kernel_size must be at least 1, got 0"),
    "padding": (ValueError, dict(padding=-1), "padding must be at least 0, got -1"),
    "padding pair": (TypeError, dict(padding=(1, 1)), "padding must be an int, got tuple"),
    "algorithm": (
        ValueError,
        dict(soft="both", algorithm="irrep"),
        "algorithm must be one of 'auto', 'reference', 'contract', 'triton_contract' for soft='both'",
    ),
    "strict algorithm": (ValueError, dict(soft=None, algorithm="contract"), "got 'contract'"),
}


@pytest.mark.parametrize("name", BAD)
def test_construction_refuses(name):
    error, changed, message = BAD[name]
    with pytest.raises(error) as raised:
        nn.NonstationaryGroupConv2d(**dict(in_channels=1, out_channels=1, kernel_size=3) | changed)
    assert message in str(raised.value)


@pytest.mark.parametrize("soft", ["both", None])
@pytest.mark.parametrize(
    "shape, message",
    [
        ((1, 2, 8, 5), "x must have 5 dimensions [B, C_in, N, H, W]"),
        ((1, 3, 8, 5, 5), "x must have C_in = 2 channels"),
        ((1, 2, 4, 5, 5), "x must have N = 8 elements"),
        ((1, 2, 8, 5, 2), "x is too small: (5, 2) pixels with padding 0, and the kernel needs 3"),
    ],
)
def test_calls_refuse(shape, message, soft):
    layer = nn.NonstationaryGroupConv2d(2, 1, 3, "SE2", 8, soft)
    with pytest.raises(ValueError) as raised:
        layer(torch.randn(shape))
    assert message in str(raised.value)
    with pytest.raises(TypeError, match="x must have weight's dtype"):
        layer(torch.randn(1, 2, 8, 5, 5).double())
