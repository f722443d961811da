import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from gconv_ext import equivariance_error, functional, nn, transform_image

SIZE = 6
KINDS = [nn.RelaxedTranslationConv2d, nn.RelaxedTranslationLiftingConv2d, nn.RelaxedTranslationGroupConv2d]


def make(kind, group="C4", banks=3, learned=True, **options):
    """A layer with 2 fields in and 4 out, and a map; `learned` draws its weights."""
    arguments = {} if kind is nn.RelaxedTranslationConv2d else {"group": group}
    options = dict(padding=1, num_filter_banks=banks, dtype=torch.float64) | options
    layer = kind(2, 4, 3, options.pop("output_size", SIZE), **arguments, **options)
    if learned:
        torch.nn.init.normal_(layer.relaxed_weight)
    elements = (layer.group.order,) if kind is nn.RelaxedTranslationGroupConv2d else ()
    return layer, torch.randn(2, 2, *elements, SIZE, SIZE, dtype=options["dtype"])


@pytest.mark.parametrize("options", [
    {}, dict(groups=2), dict(stride=2, output_size=3), dict(padding=2, dilation=2, padding_mode="circular"),
])  # fmt: skip
def test_the_planar_layer_is_its_equation(options):
    layer, x = make(nn.RelaxedTranslationConv2d, **options)
    plain = dict(stride=layer.stride, padding=layer.padding, dilation=layer.dilation, groups=layer.groups)
    if layer.padding_mode == "circular":
        x, plain["padding"] = F.pad(x, (2, 2, 2, 2), "circular"), 0
    want = sum(w * F.conv2d(x, bank, **plain) for w, bank in zip(layer.relaxed_weight, layer.weight))
    got = layer(x[..., 2:-2, 2:-2] if layer.padding_mode == "circular" else x)
    assert torch.allclose(got, want + layer.bias[:, None, None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep"])
def test_the_group_layers_are_their_equation(kind, group, algorithm):
    """Each output element by itself: its own map of weights times a strict convolution, bank by bank."""
    layer, x = make(kind, group, algorithm=algorithm)
    convolve = functional.lifting_conv2d if x.dim() == 4 else functional.group_conv2d
    got = layer(x)
    for u in range(group.order):
        maps = transform_image(layer.relaxed_weight[:, None], group, u)[:, 0]
        want = sum(w * convolve(x, bank, group=group, padding=1)[:, :, u] for w, bank in zip(maps, layer.weight))
        assert torch.allclose(got[:, :, u], want + layer.bias[:, None, None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_translation_equivariant_and_can_leave(kind):
    for learned in (False, True):
        layer, x = make(kind, padding_mode="circular", learned=learned)
        difference = (layer(x.roll((1, 2), (-2, -1))) - layer(x).roll((1, 2), (-2, -1))).abs().max()
        assert difference > 0.1 if learned else difference < 1e-12
        assert (layer.equivariance_penalty().item() == 0) != learned


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rotations_stay_strict_whatever_the_weights(kind, group, dtype):
    layer, x = make(kind, group, algorithm="irrep", dtype=dtype)
    assert equivariance_error(layer, x, group).worst == 0


def test_the_planar_layer_is_not_rotation_equivariant():
    layer, x = make(nn.RelaxedTranslationConv2d)
    torch.nn.init.constant_(layer.weight, 1)
    assert equivariance_error(layer, x, "D4").relative[1:].min() > 1e-2


def test_penalty_is_equation_7():
    """Value and gradient of the sum over all pairs, with ties, and no worse where the weights differ little."""
    layer, _ = make(nn.RelaxedTranslationConv2d)
    layer.relaxed_weight.data = (10 * layer.relaxed_weight.data).round() / 10
    flat = layer.relaxed_weight.flatten(1)
    want = (flat[:, :, None] - flat[:, None, :]).abs().sum()
    got = layer.equivariance_penalty()
    assert got.item() == pytest.approx(want.item(), rel=1e-12)
    gradients = [torch.autograd.grad(value, layer.relaxed_weight)[0] for value in (got, want)]
    assert torch.allclose(*gradients, rtol=0, atol=1e-9)
    layer = layer.float()
    layer.relaxed_weight.data = 1 + 1e-6 * torch.randn(3, SIZE, SIZE)
    flat = layer.relaxed_weight.double().flatten(1)
    want = (flat[:, :, None] - flat[:, None, :]).abs().sum()
    assert layer.equivariance_penalty().item() == pytest.approx(want.item(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind):
    layer, x = make(kind, "C2", banks=2, activation="relu")
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert gradcheck(run, (x.requires_grad_(), *values), fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_precisions_state_and_copies(kind):
    layer, x = make(kind, dtype=torch.float32)
    want = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        cast = layer(x)
    low = copy.deepcopy(layer).bfloat16()(x.bfloat16())
    for got in (cast, low):
        assert got.dtype == torch.bfloat16 and (got - want).abs().max() < 0.05 * want.abs().max()
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer).eval()):
        assert torch.equal(other(x), want) and repr(other) == repr(layer)
        assert list(other.state_dict()) == list(layer.state_dict()) == ["weight", "bias", "relaxed_weight"]


def test_compile_fullgraph():
    torch._dynamo.reset()
    layer, x = make(nn.RelaxedTranslationGroupConv2d, dtype=torch.float32)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), layer(x), atol=1e-5)


def test_repr_and_refusals():
    layer = nn.RelaxedTranslationGroupConv2d(2, 4, 3, 6, "D4", padding=1, num_filter_banks=2)
    assert repr(layer) == (
        "RelaxedTranslationGroupConv2d(2, 4, kernel_size=3, group=D4, padding=1, "
        "output_size=(6, 6), num_filter_banks=2)"
    )
    for call, error_type, message in (
        (lambda: layer(torch.ones(1, 2, 8, 6, 7)), ValueError, "x must give output_size = (6, 6), the pixels"),
        (lambda: layer(torch.ones(1, 2, 6, 6)), ValueError, "x must have 5 dimensions"),
        (lambda: layer(torch.ones(1, 3, 8, 6, 6)), ValueError, "x must have C_in = 2 fields"),
        (lambda: nn.RelaxedTranslationLiftingConv2d(1, 1, 3, (4, 5)), ValueError, "output_size must be the same for"),
        (lambda: nn.RelaxedTranslationConv2d(1, 1, 3, 0), ValueError, "output_size must be at least 1, got 0"),
        (lambda: nn.RelaxedTranslationConv2d(1, 1, 3, 4, num_filter_banks=0), ValueError, "num_filter_banks must be"),
    ):
        with pytest.raises(error_type) as error:
            call()
        assert message in str(error.value)
    assert nn.RelaxedTranslationConv2d(1, 1, 3, (4, 5))(torch.ones(1, 1, 6, 7)).shape == (1, 1, 4, 5)
