import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from gconv_ext import equivariance_error, functional, nn

ALGORITHMS = ["reference", "dense", "irrep", "auto"]
CASES = [
    dict(k=1), dict(k=3, padding=1), dict(k=2, stride=2), dict(k=3, stride=2, padding=1),
    dict(k=4, stride=2, padding=1), dict(k=3, stride=3, padding=2, dilation=2, groups=2),
    dict(k=3, stride=2, output_padding=1),
]  # fmt: skip


def arguments_of(group, k, groups=1, size=(5, 6), dtype=torch.float64, batch=2, fields=(4, 6)):
    weight = torch.randn(fields[0], fields[1] // groups, group.order, k, k, dtype=dtype)
    return [torch.randn(batch, fields[0], group.order, *size, dtype=dtype), weight, torch.randn(fields[1], dtype=dtype)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_adjoint_of_the_group_convolution(group, case, algorithm):
    """<group_conv2d(y), x> = <y, T(x)>, and T is what PyTorch makes of the expanded filter."""
    options = {name: value for name, value in case.items() if name != "k"}
    x, weight, bias = arguments_of(group, case["k"], case.get("groups", 1))
    got = functional.group_conv_transpose2d(x, weight, group=group, algorithm=algorithm, **options)
    want = F.conv_transpose2d(x.flatten(1, 2), functional.expand_filter(weight, group=group), **options)
    assert torch.allclose(got.flatten(1, 2), want, rtol=0, atol=1e-12 * want.abs().max().item())

    biased = functional.group_conv_transpose2d(x, weight, bias, group=group, algorithm=algorithm, **options)
    assert torch.allclose(biased, got + bias[:, None, None, None], rtol=0, atol=1e-12)

    options.pop("output_padding", None)
    y = torch.randn_like(got)
    there = functional.group_conv2d(y, weight, group=group, **options)
    assert (there * x).sum().item() == pytest.approx((y * got).sum().item(), rel=1e-9)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("case", [case for case in CASES if "output_padding" not in case])
def test_every_size_is_equivariant(group, case, algorithm):
    options = {name: value for name, value in case.items() if name != "k"}
    for size in ((5, 6), (4, 4)):
        x, weight, bias = arguments_of(group, case["k"], case.get("groups", 1), size)
        options |= dict(group=group, algorithm=algorithm)
        error = equivariance_error(lambda x: functional.group_conv_transpose2d(x, weight, bias, **options), x, group)
        assert error.worst == 0 if algorithm == "irrep" else error.worst <= 1e-12


def test_output_padding_breaks_equivariance():
    layer = nn.GroupConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1, dtype=torch.float64)
    assert equivariance_error(layer, torch.randn(1, 2, 4, 5, 5).double(), "C4").worst > 1e-2


@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep"])
@pytest.mark.parametrize("name", ["C2", "C4"])
def test_gradcheck(name, algorithm):
    group = functional.as_group(name)
    arguments = arguments_of(group, 2, size=(2, 2), batch=1, fields=(1, 2))
    arguments = [argument.requires_grad_() for argument in arguments]

    def run(*arguments):
        options = dict(group=group, stride=2, padding=1, output_padding=1, algorithm=algorithm)
        return functional.group_conv_transpose2d(*arguments, **options)

    assert gradcheck(run, arguments) and gradgradcheck(run, arguments)


@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision(dtype, algorithm):
    """No worse than twice the error of the reference in the same precision."""
    arguments = [a.to(dtype) for a in arguments_of(functional.as_group("D4"), 3)]
    options = dict(group="D4", stride=2, padding=1)
    exact = functional.group_conv_transpose2d(*(a.double() for a in arguments), algorithm="reference", **options)
    got = functional.group_conv_transpose2d(*arguments, algorithm=algorithm, **options)
    plain = functional.group_conv_transpose2d(*arguments, algorithm="reference", **options)
    assert got.dtype == dtype
    assert (got - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-5 * exact.abs().max()


def test_it_undoes_the_size_of_a_strided_convolution():
    x = torch.randn(2, 3, 4, 9, 9)
    y = nn.GroupConv2d(3, 5, 3, stride=2, padding=1)(x)
    assert nn.GroupConvTranspose2d(5, 3, 3, stride=2, padding=1)(y).shape == x.shape


def test_the_layer_is_its_function_and_says_what_it_is():
    options = dict(group="D4", stride=2, padding=1, output_padding=1, dilation=2, groups=2)
    layer, x = nn.GroupConvTranspose2d(4, 6, 3, bias=False, **options), torch.randn(2, 4, 8, 5, 5)
    assert torch.equal(layer(x), functional.group_conv_transpose2d(x, layer.weight, **options))
    assert layer.weight.shape == (4, 3, 8, 3, 3)
    assert repr(layer) == (
        "GroupConvTranspose2d(4, 6, kernel_size=3, group=D4, stride=2, padding=1, dilation=2, groups=2, bias=False, "
        "output_padding=(1, 1))"
    )
    bound = (4 // 2 * 8 * 9 / 4) ** -0.5  # 9 / 4 taps reach an output pixel on average
    assert 0.95 * bound < layer.weight.abs().max() <= bound


@pytest.mark.parametrize("change, error_type, message", [
    (dict(x=torch.ones(1, 3, 4, 5, 5)), ValueError, "x must have C_in = 2 fields, as weight, got shape (1, 3,"),
    (dict(x=torch.ones(1, 2, 8, 5, 5)), ValueError, "x must have |P| = 4 elements of C4"),
    (dict(x=torch.ones(1, 2, 4, 5, 5).double()), TypeError, "x must have weight's dtype"),
    (dict(bias=torch.ones(2)), ValueError, "bias must have shape [C_out] = [3]"),
    (dict(weight=torch.ones(2, 3, 4, 3)), ValueError, "weight must have 5 dimensions [C_in, C_out, |P|, k, k]"),
    (dict(groups=3), ValueError, "groups must divide C_in = 2, got 3"),
    (dict(output_padding=2), ValueError, "output_padding must be less than the stride (2, 2), got (2, 2)"),
    (dict(stride=(1, 2)), ValueError, "stride must be the same for rows and columns"),
    (dict(x=torch.ones(1, 2, 4, 1, 1), padding=2), ValueError, "x is too small: 1 x 1 with padding (2, 2) gives"),
    (dict(algorithm="fast"), ValueError, "algorithm must be one of"),
    (dict(algorithm="fused"), ValueError, "algorithm='fused' does not support this call"),
])  # fmt: skip
def test_refusals(change, error_type, message, monkeypatch):
    from gconv_ext import triton_kernels

    monkeypatch.setattr(triton_kernels, "runs_on", lambda device: False)
    tensors = dict(x=torch.ones(1, 2, 4, 5, 5), weight=torch.ones(2, 3, 4, 3, 3), bias=torch.ones(3))
    arguments = tensors | dict(group="C4", stride=2)
    with pytest.raises(error_type) as error:
        functional.group_conv_transpose2d(**arguments | change)
    assert message in str(error.value)
