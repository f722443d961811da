import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F

from gconv_ext import equivariance_error, functional, nn

STRICT = [nn.LiftingConv2d, nn.GroupConv2d]
RELAXED = [nn.RelaxedLiftingConv2d, nn.RelaxedGroupConv2d]


def image_for(layer, size=(6, 6), dtype=torch.float32):
    elements = () if "Lifting" in type(layer).__name__ else (layer.group.order,)
    return torch.randn(2, layer.in_channels, *elements, *size, dtype=dtype)


@pytest.mark.parametrize("layer_type", STRICT + RELAXED)
def test_a_layer_is_its_function(layer_type, group):
    options = dict(num_filter_banks=2) if layer_type in RELAXED else {}
    layer = layer_type(4, 6, 3, group=group, stride=2, padding=1, dilation=2, groups=2, **options)
    x = image_for(layer, (9, 9))
    name = {
        nn.LiftingConv2d: "lifting_conv2d", nn.GroupConv2d: "group_conv2d",
        nn.RelaxedLiftingConv2d: "relaxed_lifting_conv2d", nn.RelaxedGroupConv2d: "relaxed_group_conv2d",
    }[layer_type]  # fmt: skip
    weights = [layer.weight] + ([layer.relaxed_weight] if layer_type in RELAXED else [])
    want = getattr(functional, name)(x, *weights, layer.bias, group=group, stride=2, padding=1, dilation=2, groups=2)
    assert torch.equal(layer(x), want)
    bank = (6, 2) + (() if "Lifting" in layer_type.__name__ else (group.order,)) + (3, 3)
    assert layer.weight.shape == ((2, *bank) if layer_type in RELAXED else bank)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("layer_type", STRICT + RELAXED)
def test_padding_modes(layer_type, mode):
    layer = layer_type(2, 3, 3, group="D4", padding=2, padding_mode=mode, dtype=torch.float64)
    x = image_for(layer, dtype=torch.float64)
    filter = functional.expand_filter(layer.weight, getattr(layer, "relaxed_weight", None), group="D4")
    conv = torch.nn.Conv2d(filter.shape[1], filter.shape[0], 3, padding=2, padding_mode=mode, dtype=torch.float64)
    conv.weight.data, conv.bias.data = filter.detach(), layer.bias.detach().repeat_interleave(8)
    planes = x if x.dim() == 4 else x.flatten(1, 2)
    assert torch.allclose(layer(x).flatten(1, 2), conv(planes), rtol=0, atol=1e-12)
    assert equivariance_error(layer, x, "D4").worst < 1e-12


@pytest.mark.parametrize("relax_on", ["output", "input"])
def test_relaxed_layers_start_equivariant_and_can_leave(relax_on, group):
    layer = nn.RelaxedGroupConv2d(2, 3, 3, group=group, padding=1, num_filter_banks=3, relax_on=relax_on, dtype=torch.float64)
    x = image_for(layer, dtype=torch.float64)
    assert equivariance_error(layer, x, group).worst < 1e-12
    assert layer.equivariance_penalty().item() == 0
    if group.order > 1:
        torch.nn.init.normal_(layer.relaxed_weight)
        assert (equivariance_error(layer, x, group).relative[1:] > 1e-2).all()
        assert layer.equivariance_penalty().item() > 0


def test_the_initial_filter_has_the_variance_of_a_strict_layer():
    strict = nn.GroupConv2d(64, 64, 3).weight.std()
    relaxed = nn.RelaxedGroupConv2d(64, 64, 3, num_filter_banks=4)
    effective = torch.einsum("l,l...->...", relaxed.relaxed_weight[:, 0], relaxed.weight)
    assert effective.std().item() == pytest.approx(strict.item(), rel=0.02)
    bound = (64 * 4 * 9) ** -0.5
    assert strict.item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_penalty_is_equation_7():
    layer = nn.RelaxedGroupConv2d(1, 1, 1, group="C2", num_filter_banks=2)
    layer.relaxed_weight.data = torch.tensor([[1.0, 3.0], [0.5, 0.25]])
    assert layer.equivariance_penalty().item() == 2 * 2 + 2 * 0.25  # both orders of each pair
    layer = nn.RelaxedGroupConv2d(1, 1, 1, group="D4", num_filter_banks=3)
    torch.nn.init.normal_(layer.relaxed_weight)
    want = sum((w[g] - w[h]).norm() for w in layer.relaxed_weight for g in range(8) for h in range(8))
    assert layer.equivariance_penalty().item() == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.parametrize("layer_type", STRICT + RELAXED)
def test_activation(layer_type):
    layer = layer_type(2, 3, 3, group="D4", activation="relu")
    plain = copy.deepcopy(layer)
    plain.activation = None
    x = image_for(layer)
    assert torch.equal(layer(x), plain(x).relu()) and "activation=relu" in repr(layer)


def test_gradients_reach_every_parameter():
    layer = nn.RelaxedGroupConv2d(2, 3, 3, num_filter_banks=2, padding=1)
    (layer(image_for(layer)).square().sum() + layer.equivariance_penalty()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())


@pytest.mark.parametrize("layer_type", STRICT + RELAXED)
def test_copies_and_state(layer_type):
    layer, x = layer_type(2, 3, 3, group="D4"), None
    x = image_for(layer)
    want = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), want)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = layer_type(2, 3, 3, group="D4", algorithm="reference").eval()
    other.load_state_dict(torch.load(file))
    assert torch.allclose(other(x), want, atol=1e-5)
    assert list(layer.eval().state_dict()) == list(layer.train().state_dict())


def test_repr_says_what_the_layer_is():
    layer = nn.RelaxedGroupConv2d(2, 4, 3, group="p4m", stride=2, groups=2, bias=False, num_filter_banks=3)
    assert repr(layer) == (
        "RelaxedGroupConv2d(2, 4, kernel_size=3, group=D4, stride=2, groups=2, bias=False, num_filter_banks=3, relax_on='output')"
    )


@pytest.mark.parametrize(
    "make, error_type, message",
    [
        (lambda: nn.GroupConv2d(0, 1, 3), ValueError, "in_channels must be at least 1, got 0"),
        (lambda: nn.GroupConv2d(1, 1.5, 3), TypeError, "out_channels must be an int, got float"),
        (lambda: nn.GroupConv2d(1, 1, (3, 3)), TypeError, "kernel_size must be an int, got tuple"),
        (lambda: nn.GroupConv2d(3, 4, 3, groups=2), ValueError, "groups must divide in_channels = 3, got 2"),
        (lambda: nn.GroupConv2d(4, 3, 3, groups=2), ValueError, "groups must divide out_channels = 3, got 2"),
        (lambda: nn.GroupConv2d(1, 1, 3, stride=0), ValueError, "stride must be at least 1, got 0"),
        (lambda: nn.GroupConv2d(1, 1, 3, stride=(1, 2)), ValueError, "stride must be the same for rows and columns, because C4"),
        (lambda: nn.GroupConv2d(1, 1, 3, padding=-1), ValueError, "padding must be at least 0, got -1"),
        (lambda: nn.GroupConv2d(1, 1, 3, padding="same"), TypeError, "padding must be an int or a pair of ints, got 'same'"),
        (lambda: nn.GroupConv2d(1, 1, 3, group="C3"), ValueError, "unknown group 'C3'"),
        (lambda: nn.GroupConv2d(1, 1, 3, padding_mode="mirror"), ValueError, "padding_mode must be one of"),
        (lambda: nn.GroupConv2d(1, 1, 3, algorithm="fast"), ValueError, "algorithm must be one of 'auto', 'reference', 'dense', 'fused', 'irrep', 'triton_fused', 'triton_irrep', got 'fast'"),
        (lambda: nn.GroupConv2d(1, 1, 3, activation="tanh"), ValueError, "activation must be None or 'relu', got 'tanh'"),
        (lambda: nn.RelaxedGroupConv2d(1, 1, 3, relax_on="both"), ValueError, "relax_on must be 'input' or 'output'"),
        (lambda: nn.RelaxedLiftingConv2d(1, 1, 3, relax_on="input"), ValueError, "relax_on='input' needs a group axis"),
        (lambda: nn.RelaxedGroupConv2d(1, 1, 3, num_filter_banks=0), ValueError, "num_filter_banks must be at least 1"),
        (lambda: nn.GroupPool("sum"), ValueError, "reduce must be 'max' or 'mean', got 'sum'"),
        (lambda: nn.GroupDropout2d(1.5), ValueError, "p must be a probability"),
        (lambda: nn.SpatialMaxPool2d(2, padding=2), ValueError, "padding must be an int from 0 to"),
    ],
)
def test_bad_construction(make, error_type, message):
    with pytest.raises(error_type) as error:
        make()
    assert message in str(error.value)


def test_unequal_pairs_where_the_group_allows_them():
    layer = nn.GroupConv2d(1, 1, 3, group="D2", stride=(1, 2), padding=(0, 1), dtype=torch.float64)
    x = image_for(layer, (7, 9), torch.float64)
    assert layer(x).shape[-2:] == (5, 5)
    assert equivariance_error(layer, x, "D2").worst < 1e-12


@pytest.mark.parametrize("make", [
    lambda: nn.GroupBatchNorm2d(3), lambda: nn.GroupBatchNorm2d(3).eval(), lambda: nn.SpatialMaxPool2d(2),
    lambda: nn.SpatialMaxPool2d(3, 2, 1), lambda: nn.SpatialAvgPool2d(2), lambda: nn.GroupPool(), lambda: nn.GroupPool("mean"),
    lambda: nn.GroupDropout2d(0.5).eval(),
])  # fmt: skip
def test_other_layers_are_equivariant(make, group):
    layer, size = make(), 7 if "stride=2, padding=1" in repr(make()) else 6
    x = torch.randn(2, 3, group.order, size, size, dtype=torch.float64)
    assert equivariance_error(layer.double(), x, group).worst < 1e-12
    with pytest.raises(ValueError, match="x must have 5 dimensions"):
        layer(x[:, :, 0])


def test_batch_norm_is_per_field():
    x = torch.randn(8, 3, 4, 5, 5) * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1) + 1
    y = nn.GroupBatchNorm2d(3)(x)
    want = (x - x.mean((0, 2, 3, 4), keepdim=True)) / (x.var((0, 2, 3, 4), keepdim=True, correction=0) + 1e-5).sqrt()
    assert torch.allclose(y, want, atol=1e-5)


def test_dropout_drops_whole_fields():
    y = nn.GroupDropout2d(0.5)(torch.ones(50, 20, 4, 3, 3))
    kept = y.flatten(2)
    assert ((kept == 0).all(-1) | (kept == 2).all(-1)).all() and 0.4 < (kept[..., 0] == 0).float().mean() < 0.6


def test_pools_agree_with_torch():
    x = torch.randn(2, 3, 4, 8, 8)
    assert torch.equal(nn.GroupPool()(x), x.max(2).values)
    assert torch.equal(nn.SpatialMaxPool2d(2)(x)[:, :, 1], F.max_pool2d(x[:, :, 1], 2))
    assert torch.allclose(nn.SpatialAvgPool2d(3, 2, 1)(x)[:, :, 1], F.avg_pool2d(x[:, :, 1], 3, 2, 1), atol=1e-6)
