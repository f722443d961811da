import copy
import io
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from gconv_ext import equivariance_error, functional, nn
from gconv_ext.nn.partial import SampledMap
from gconv_ext.sampled_groups import moved_back, relative_coordinates

GROUPS = [("SE2", 4), ("SE2", 8), ("SE2", 3), ("E2", 4), ("E2", 3), ("D1", 1), ("T2", 1)]
DOUBLE = dict(dtype=torch.float64)


def layers(group, elements, partial=False, **options):
    """A lifting layer and a group convolution, in float64, of smooth kernels that are not small."""
    options = dict(group=group, elements=elements, padding=1, omega0=3.0, **DOUBLE) | options
    lift = nn.PartialLiftingConv2d(2, 3, 3, **options)
    conv = nn.PartialGroupConv2d(3, 2, 3, partial=partial, **options)
    for layer in (lift, conv):
        torch.nn.init.normal_(layer.bias)
    return lift, conv


def set_extent(layer, theta, mirror):
    """θ and the probability of the mirrored elements, where the layer has them."""
    if layer.distribution.theta is not None:
        layer.distribution.theta.data.fill_(theta)
    if layer.distribution.kept_mirror is not None:
        layer.distribution.kept_mirror.logit.data.fill_(torch.tensor(mirror).logit())


def filters(layer, places):
    """ψ at places [T, D], zero outside the disk, as [C_out, C_in, k, k]."""
    values = layer.kernel(places).unflatten(-1, (layer.out_channels, layer.in_channels)).movedim(0, -1)
    filter = values.new_zeros(layer.out_channels, layer.in_channels, layer.kernel_size**2)
    filter[..., layer.disk] = values
    return filter.unflatten(-1, (layer.kernel_size, layer.kernel_size))


def by_the_equation(layer, feature_map, elements):
    """The layer's docstring, one pair of elements after the other."""
    x, others = feature_map
    result = []
    for u in range(len(elements.turns)):
        turns, signs = elements.turns[u : u + 1], elements.signs[u : u + 1]
        relative = relative_coordinates(turns, signs, others)[0, :, : layer.kernel[0].in_features - 2]
        taps = moved_back(layer.taps, turns, signs)[0]
        y = 0
        for v in range(len(others.turns)):
            places = torch.cat([taps, relative[v].expand(len(taps), -1)], dim=1)
            y = y + F.conv2d(x[:, :, v], filters(layer, places), stride=layer.stride, padding=layer.padding)
        result.append(y / len(others.turns) + layer.bias[:, None, None])
    return torch.stack(result, dim=2)


@pytest.mark.parametrize("algorithm", ["auto", "reference", "dense", "irrep"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("group, elements", GROUPS)
@torch.no_grad()
def test_a_layer_is_its_equation(group, elements, training, algorithm):
    for partial in (False, True):
        lift, conv = layers(group, elements, partial, algorithm=algorithm, stride=2)
        lift.train(training), conv.train(training)
        set_extent(conv, 0.7, 1.0)
        lifted = lift(torch.randn(2, 2, 7, 7, **DOUBLE))
        y = conv(lifted)
        assert torch.allclose(y.features, by_the_equation(conv, lifted, y.elements), atol=1e-12)


@torch.no_grad()
def test_lifting_is_its_equation():
    for group, elements in GROUPS:
        lift, _ = layers(group, elements)
        x = torch.randn(2, 2, 5, 5, **DOUBLE)
        y, sampled = lift(x)
        for u in range(len(sampled.turns)):
            taps = moved_back(lift.taps, sampled.turns[u : u + 1], sampled.signs[u : u + 1])[0]
            want = F.conv2d(x, filters(lift, taps), lift.bias, padding=1)
            assert torch.allclose(y[:, :, u], want, atol=1e-12)


@pytest.mark.parametrize("size, taps", [(1, 1), (3, 5), (4, 4), (5, 13), (7, 29)])
@torch.no_grad()
def test_the_kernel_is_a_disk(size, taps):
    """A point turns into a disk of radius (k − 1) / 2, at every angle."""
    image = torch.zeros(1, 1, 2 * size - 1, 2 * size - 1, **DOUBLE)
    image[..., size - 1, size - 1] = 1
    lift = nn.PartialLiftingConv2d(1, 4, size, elements=5, bias=False, **DOUBLE)
    torch.nn.init.normal_(lift.kernel[4].bias)  # it starts as a kernel that is 0 in the centre
    y = lift(image).features[0].ne(0)
    assert torch.equal(y.any(0).any(0), y.all(0).all(0)) and y[0, 0].sum() == taps
    rows, columns = y[0, 0].nonzero().sub((size - 1) / 2).unbind(1)
    assert (rows.square() + columns.square()).max() <= ((size - 1) / 2) ** 2


@pytest.mark.parametrize("kernel", ["siren", "swish"])
@pytest.mark.parametrize("group, elements, name", [
    ("SE2", 4, "C4"), ("E2", 4, "D4"), ("SE2", 2, "C2"), ("E2", 2, "D2"), ("D1", 1, "D1"),
])  # fmt: skip
@torch.no_grad()
def test_agrees_with_the_point_group_on_the_grid(group, elements, name, kernel):
    """E(2) with N = 4 is D4: the group convolution with the kernel's values at the group's elements."""
    lift, conv = (layer.eval() for layer in layers(group, elements, kernel=kernel, hidden=7))
    x = torch.randn(2, 2, 6, 6, **DOUBLE)
    lifted = lift(x)
    lifting_bank = filters(lift, lift.taps)
    want = functional.lifting_conv2d(x, lifting_bank, lift.bias, group=name, padding=1)
    assert torch.allclose(lifted.features, want, atol=1e-12)
    relative = relative_coordinates(lifted.elements.turns[:1], lifted.elements.signs[:1], lifted.elements)[0]
    relative = relative[:, : conv.kernel[0].in_features - 2]
    banks = [filters(conv, torch.cat([conv.taps, place.expand(len(conv.taps), -1)], dim=1)) for place in relative]
    bank = torch.stack(banks, dim=2) / len(banks)
    want = functional.group_conv2d(lifted.features, bank, conv.bias, group=name, padding=1)
    assert torch.allclose(conv(lifted).features, want, atol=1e-12)
    assert equivariance_error(lambda image: conv(lift(image)).features, x, name).worst < 1e-12


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rotations", ["uniform", "bernoulli"])
@pytest.mark.parametrize("group, elements", GROUPS)
def test_full_extent_equals_the_full_layer(group, elements, rotations, training):
    lift, full = layers(group, elements)
    partial = nn.PartialGroupConv2d(3, 2, 3, group, elements, padding=1, omega0=3.0, rotations=rotations, **DOUBLE)
    missing, unexpected = partial.load_state_dict(full.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("distribution.") for name in missing)
    set_extent(partial, 1.0, 1.0)
    if partial.distribution.kept_rotations is not None:
        partial.distribution.kept_rotations.logit.data.fill_(math.inf)
        lift.eval(), full.eval()  # discrete rotations have no random start
    else:
        lift.train(training), full.train(training)
    partial.train(training)
    lifted = lift(torch.randn(2, 2, 6, 6, **DOUBLE))
    want, got = (layer(lifted, torch.Generator().manual_seed(3)) for layer in (full, partial))
    assert torch.allclose(got.elements.turns, want.elements.turns)
    assert torch.allclose(got.features, want.features, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_no_extent_equals_a_layer_without_rotation(training):
    _, turning = layers("SE2", 8, partial=True)
    lift, plain = layers("T2", 1)
    turning.load_state_dict(plain.state_dict() | {"distribution.theta": torch.tensor(0.0)})
    lifted, turning = lift(torch.randn(2, 2, 6, 6, **DOUBLE)), turning.train(training)
    got = turning(lifted)
    assert got.features.shape[2] == 1 and torch.allclose(got.features, plain(lifted).features, atol=1e-12)
    turning.distribution.theta.data.fill_(1e-9)
    assert torch.allclose(turning(lifted).features, plain(lifted).features, atol=1e-6)


@pytest.mark.parametrize("group, elements", [("E2", 4), ("D1", 1)])
def test_probability_zero_forgets_the_mirror(group, elements):
    """What is left are the elements without mirror, as they were."""
    lift, conv = layers(group, elements, partial=True)
    lifted = lift(torch.randn(2, 2, 6, 6, **DOUBLE))
    set_extent(conv, 0.6, 1.0)
    both = conv(lifted, torch.Generator().manual_seed(1))
    set_extent(conv, 0.6, 0.0)
    forgotten = conv(lifted, torch.Generator().manual_seed(1))
    assert not forgotten.elements.mirrors and 2 * forgotten.features.shape[2] == both.features.shape[2]
    assert torch.allclose(forgotten.features, both.features[:, :, : both.elements.rotations], atol=1e-12)


@pytest.mark.parametrize("group, elements, theta", [
    ("SE2", 2, 0.6), ("SE2", 3, 1.0), ("E2", 2, 0.8), ("D1", 1, 1.0), ("T2", 1, 1.0),
])  # fmt: skip
def test_gradcheck(group, elements, theta):
    """Image, kernels, biases, and θ of two layers, through the output and the input elements."""
    lift, first = layers(group, elements, partial=True, hidden=3)
    first.padding = 0
    second = nn.PartialGroupConv2d(2, 1, 1, group, elements, hidden=3, omega0=3.0, **DOUBLE)
    shortcut = nn.PartialPointwiseConv2d(3, 1, group, hidden=2, omega0=3.0, **DOUBLE)
    set_extent(first, theta, 1.0), set_extent(second, 0.7 if group in ("SE2", "E2") else 1.0, 1.0)
    network = torch.nn.ModuleList([lift, first, second, shortcut])
    # At θ = 1 the number of elements jumps to one side; that derivative is tested with the distribution.
    parameters = dict(network.named_parameters())
    left_out = {"1.distribution.theta"} if theta == 1 else set()
    names = [name for name in parameters if "logit" not in name and name not in left_out]

    def run(x, *values):
        substituted = {f"network.{name}": value for name, value in zip(names, values)}
        return torch.func.functional_call(_Run(network), substituted, (x,))

    x = torch.randn(1, 2, 3, 4, **DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *(parameters[name] for name in names)), fast_mode=True)
    if theta < 1:
        y = run(x, *(parameters[name] for name in names))
        thetas = [first.distribution.theta, second.distribution.theta]
        assert all(gradient != 0 for gradient in torch.autograd.grad(y.square().sum(), thetas))


class _Run(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        lift, first, second, shortcut = self.network
        generator = torch.Generator().manual_seed(2)
        lifted = lift(x, generator)
        y = second(first(lifted, generator), generator)
        return y.features + shortcut(lifted, y.elements).features[..., :1, :2]


def test_gradient_reaches_the_probabilities():
    """Through the weights, whose gradient is that of leaving elements out of the mean; also at the end of a network."""
    lift, conv = layers("E2", 2)
    lifted = lift(torch.randn(1, 2, 4, 4, **DOUBLE))
    weights = torch.ones(4, **DOUBLE, requires_grad=True)

    def run(weights):
        weighted = lifted._replace(elements=lifted.elements._replace(weights=weights))
        y = conv(weighted, torch.Generator().manual_seed(1)).features
        return y, weighted.pool("mean")

    assert torch.autograd.gradcheck(run, weights)

    _, partial = layers("E2", 2, partial=True)
    set_extent(partial, 1.0, 0.999999)
    partial(lifted).apply(torch.relu).pool("max").sum().backward()
    assert partial.distribution.kept_mirror.logit.grad.item() != 0


def test_weight_zero_is_as_good_as_left_out():
    lift, conv = layers("E2", 3)
    lifted = lift(torch.randn(1, 2, 4, 4, **DOUBLE)).apply(torch.relu)
    half = lifted.features[:, :, :3]
    unkept = lifted._replace(elements=lifted.elements._replace(weights=torch.tensor([1.0, 1, 1, 0, 0, 0], **DOUBLE)))
    left_out = SampledMap(half, lifted.elements._replace(turns=lifted.elements.turns[:3], mirrors=False))
    got, want = (conv(x, torch.Generator().manual_seed(1)).features for x in (unkept, left_out))
    assert torch.allclose(got, want, atol=1e-12)
    assert not torch.allclose(got, conv(lifted, torch.Generator().manual_seed(1)).features)
    assert all(torch.allclose(unkept.pool(reduce), left_out.pool(reduce), atol=1e-12) for reduce in ("mean", "max"))


def statistic(network, x, functionals, draws):
    """[draws, F] of linear functionals of a sampled layer's image."""
    return torch.stack([torch.einsum("fchw,chw->f", functionals, network(x)[0]) for _ in range(draws)])


@pytest.mark.parametrize("group", ["SE2", "E2"])
@torch.no_grad()
def test_sampled_layers_are_equivariant_in_expectation(group):
    """E f(r·x) = r·E f(x) for a quarter turn, which three sampled rotations do not contain: Welch's test of 4
    functionals, each at level 5e-5, and it must find a layer that learned to leave the group."""
    lift, conv = layers(group, 3, partial=True)
    set_extent(conv, 1.0, 1.0)
    conv.kernel[0].weight.data.mul_(3)
    x, functionals = torch.randn(1, 2, 5, 5, **DOUBLE), torch.randn(4, 2, 5, 5, **DOUBLE)
    turned, back = x.rot90(1, (-2, -1)), functionals.rot90(1, (-2, -1))

    def z():
        network = lambda image: conv(lift(image)).pool("mean")
        one, other = statistic(network, x, functionals, 300), statistic(network, turned, back, 500)
        return (one.mean(0) - other.mean(0)).abs() / ((one.var(0) + other.var(0)) / 300).sqrt()

    single = conv(lift(turned)).pool("mean") - conv(lift(x)).pool("mean").rot90(1, (-2, -1))
    assert single.abs().max() > 1e-3  # not of each sample
    assert z().max() < 4.06  # two-sided level 5e-5 of a normal distribution
    set_extent(conv, 0.3, 1.0)
    assert z().max() > 4.06


@torch.no_grad()
def test_irrep_keeps_equivariance_to_the_bit():
    for group, elements, name in (("SE2", 8, "C4"), ("E2", 8, "D4")):
        lift, conv = (layer.eval().float() for layer in layers(group, elements, algorithm="irrep"))
        pooled = lambda x: conv(lift(x)).pool("max")
        x = torch.randn(2, 2, 8, 8)
        assert (equivariance_error(pooled, x, name).relative == 0).all() and pooled(x).std() > 0


def saved_bytes(layer, feature_map):
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
        layer(feature_map)
    return sum(sizes)


def flops(layer, feature_map):
    with FlopCounterMode(display=False) as counter:
        layer(feature_map).features.sum().backward()
    return counter.get_total_flops()


def detached(feature_map):
    elements = feature_map.elements
    return SampledMap(feature_map.features.detach(), elements._replace(turns=elements.turns.detach()))


def test_a_smaller_subset_costs_less():
    """Half the elements: half the work and memory; with half of them in the input too, a quarter of the work."""
    lift, first = layers("SE2", 8, partial=True, algorithm="reference")
    _, second = layers("SE2", 8, partial=True, algorithm="reference")
    second = nn.PartialGroupConv2d(2, 3, 3, "SE2", 8, padding=1, algorithm="reference", **DOUBLE)
    with torch.no_grad():
        x = lift(torch.randn(4, 2, 20, 20, **DOUBLE))
    full, full_bytes, full_after = flops(first, x), saved_bytes(first, x), flops(second, detached(first(x)))
    set_extent(first, 0.5, 1.0), set_extent(second, 0.5, 1.0)
    y = first(x)
    assert y.features.shape[2] == 4
    assert 0.45 < flops(first, x) / full < 0.55
    assert flops(second, detached(y)) / full_after < 0.3
    assert saved_bytes(second, y) / full_bytes < 0.75


@pytest.mark.parametrize("partial", [False, True])
def test_compile(partial):
    """A layer over the whole group in one graph; a partial one breaks it where it counts its elements."""
    torch._dynamo.reset()
    lift, conv = (layer.eval() for layer in layers("SE2", 4, partial))

    def run(x):
        return conv(lift(x)).pool("max")

    x = torch.randn(2, 2, 6, 6, **DOUBLE)
    want, got = run(x), torch.compile(run, fullgraph=not partial, backend="aot_eager")(x)
    assert torch.allclose(got, want, atol=1e-12)
    parameters = list(conv.kernel.parameters())
    for g, w in zip(torch.autograd.grad(got.sum(), parameters), torch.autograd.grad(want.sum(), parameters)):
        assert torch.allclose(g, w, atol=1e-12)


def test_autocast_renders_in_full_precision():
    lift, conv = (layer.eval().float() for layer in layers("SE2", 4))
    x = torch.randn(2, 2, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        got = conv(lift(x)).features
    want = conv(lift(x)).features
    assert got.dtype == torch.bfloat16 and (got - want).abs().max() < 0.02 * want.abs().max()


def test_copies_and_state():
    lift, conv = layers("E2", 4, partial=True)
    set_extent(conv, 0.4, 0.8)
    x = lift(torch.randn(1, 2, 5, 5, **DOUBLE))
    want = conv.eval()(x).features
    buffer = io.BytesIO()
    torch.save(conv.state_dict(), buffer)
    buffer.seek(0)
    fresh = layers("E2", 4, partial=True)[1].eval()
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    for layer in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv)), fresh):
        assert torch.equal(layer(x).features, want)
    assert {name.split(".")[0] for name in conv.state_dict()} == {"kernel", "bias", "distribution"}
    assert set(conv.train().state_dict()) == set(conv.eval().state_dict())
    assert "E2, elements=4, learned=True" in repr(conv)
    on_meta = nn.PartialGroupConv2d(3, 2, 3, "E2", 4, device="meta")
    assert {tensor.device.type for tensor in (*on_meta.parameters(), *on_meta.buffers())} == {"meta"}


def some_map(group="E2", elements=2, channels=3):
    return nn.PartialLiftingConv2d(1, channels, 1, group, elements)(torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("make, error_type, message", [
    (lambda: nn.PartialLiftingConv2d(1, 2, 3, "p4"), ValueError, "group must be one of 'T2', 'SE2', 'D1', 'E2', got"),
    (lambda: nn.PartialGroupConv2d(1, 2, 3, 4), TypeError, "group must be a str"),
    (lambda: nn.PartialGroupConv2d(1, 0, 3), ValueError, "out_channels must be at least 1"),
    (lambda: nn.PartialGroupConv2d(1, 1, 2), ValueError, "kernel_size must not be 2"),
    (lambda: nn.PartialGroupConv2d(1, 2, 3, stride=0), ValueError, "stride must be at least 1"),
    (lambda: nn.PartialGroupConv2d(1, 2, 3, kernel="gabor"), ValueError, "kernel must be one of 'siren', 'relu'"),
    (lambda: nn.PartialGroupConv2d(1, 2, 3, omega0=0), ValueError, "omega0 must be positive"),
    (lambda: nn.PartialGroupConv2d(1, 2, 3, algorithm="fft"), ValueError, "algorithm must be one of"),
    (lambda: nn.PartialLiftingConv2d(1, 2, 3)(torch.ones(1, 5, 5)), ValueError, "x must have 4 dimensions"),
    (lambda: nn.PartialLiftingConv2d(1, 2, 3)(torch.ones(1, 2, 5, 5)), ValueError, "C_in = 1 fields"),
    (lambda: nn.PartialGroupConv2d(3, 2, 1)(torch.ones(1, 3, 8, 5, 5)), TypeError, "feature_map must be a SampledMap"),
    (lambda: nn.PartialGroupConv2d(2, 2, 1, "E2")(some_map()), ValueError, "C_in = 2 fields and N = 4 elements"),
    (lambda: nn.PartialGroupConv2d(3, 2, 1)(some_map()), ValueError, "over a group without mirrors"),
    (lambda: nn.PartialGroupConv2d(3, 2, 1)(SampledMap(torch.ones(1, 3, 2), some_map("SE2").elements)),
     ValueError, "features must have 5"),
])  # fmt: skip
def test_bad_arguments(make, error_type, message):
    with pytest.raises(error_type) as error:
        make()
    assert message in str(error.value)
