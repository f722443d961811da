"""The Triton contraction against the reference: on a GPU where there is one, else a few cases in the interpreter."""

import pytest
import torch
from interpreter import needs_interpreter

from gconv_ext import nn, ops, triton_kernels
from gconv_ext.contraction import contract

pytestmark = needs_interpreter
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16] if GPU else [torch.float32]
# batch, C, M, I, O, D, k, stride, padding, height, width
INTERPRETED = [
    (1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1), (2, 3, 1, 1, 2, 5, 3, 1, 1, 1, 4), (17, 2, 1, 1, 1, 3, 2, 1, 0, 2, 3),
    (1, 9, 2, 1, 3, 4, 2, 2, 1, 2, 3), (1, 2, 1, 2, 33, 17, 3, 3, 2, 2, 2),
]  # fmt: skip
ON_GPU = [(16, 32, 1, 1, 32, 32, 3, 1, 1, 32, 32), (5, 20, 4, 4, 40, 24, 3, 2, 1, 11, 9)]


@pytest.fixture(autouse=True)
def _kernels_run():
    assert triton_kernels.missing_reason() is None, triton_kernels.missing_reason()


def make(case, dtype=torch.float32):
    batch, c, m, i, o, d, k, stride, padding, height, width = case
    sizes = [(n + 2 * padding - k) // stride + 1 for n in (height, width)]
    tensors = torch.randn(batch, c, m, height, width), torch.randn(*sizes, i, m, k * k, d), torch.randn(o, c, d)
    return [t.to(DEVICE, dtype) for t in tensors], dict(stride=stride, padding=padding)


def passes(arguments, options, **algorithm):
    inputs = [a.detach().requires_grad_() for a in arguments]
    y = contract(*inputs, **options, **algorithm)
    slope = torch.cos(torch.arange(y.numel(), device=y.device)).view_as(y).to(y.dtype)
    return [y, *torch.autograd.grad(y, inputs, slope)]


@pytest.mark.parametrize("case", [*INTERPRETED, *(ON_GPU if GPU else [])])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients(case, dtype):
    """No worse than twice the error of plain PyTorch in the same precision."""
    arguments, options = make(case, dtype)
    exact = passes([a.double() for a in arguments], options, algorithm="reference")
    plain, got = (
        passes(arguments, options, algorithm="reference"),
        passes(arguments, options, algorithm="triton_contract"),
    )
    for a, b, want in zip(got, plain, exact, strict=True):
        assert a.shape == want.shape and a.is_contiguous()
        assert (a - want).abs().max() <= 2 * (b - want).abs().max() + 1e-5 * max(1, want.abs().max())


def test_views_and_single_gradients():
    (x, hidden, weight), options = make(INTERPRETED[1])
    x, weight = torch.stack([x, x], -1)[..., 1], weight.transpose(0, 2).contiguous().transpose(0, 2)
    want = passes([x, hidden, weight], options, algorithm="reference")
    for needed, gradient in enumerate(want[1:]):
        inputs = [a.detach().requires_grad_(index == needed) for index, a in enumerate((x, hidden, weight))]
        y = contract(*inputs, **options, algorithm="triton_contract")
        y.backward(torch.cos(torch.arange(y.numel(), device=y.device)).view_as(y))
        assert torch.allclose(inputs[needed].grad, gradient, atol=1e-4)


def test_second_derivatives():
    arguments, options = make(INTERPRETED[1])
    results = []
    for algorithm in ("reference", "triton_contract"):
        inputs = [a.detach().requires_grad_() for a in arguments]
        grads = torch.autograd.grad(
            contract(*inputs, **options, algorithm=algorithm).pow(2).sum(), inputs, create_graph=True
        )
        results.append(torch.autograd.grad(sum(grad.sin().sum() for grad in grads), inputs))
    for want, got in zip(*results, strict=True):
        assert torch.allclose(got, want, rtol=1e-3, atol=1e-3 * want.abs().max())


def test_opcheck_and_an_empty_batch():
    (x, hidden, weight), options = make(INTERPRETED[1])
    torch.library.opcheck(torch.ops.gconv_ext.triton_contract_fprop, (x, hidden, weight, *options.values()))
    dy = ops.contract_fprop("triton_contract", x, hidden, weight, *options.values())
    torch.library.opcheck(
        torch.ops.gconv_ext.triton_contract_backward, (dy, x, hidden, weight, *options.values(), [True, False, True])
    )
    y, *grads = passes([x[:0], hidden, weight], options, algorithm="triton_contract")
    assert y.shape == (0, *dy.shape[1:]) and not any(grad.any() for grad in grads)


def test_layers_and_what_they_support():
    layer = nn.NonstationaryLiftingConv2d(
        1, 2, 3, "T2", soft="translation", padding=1, hidden_channels=3, algorithm="triton_contract"
    ).to(DEVICE)
    x = torch.randn(1, 1, 2, 3, device=DEVICE)
    got = layer(x)
    layer.algorithm = "reference"
    assert torch.allclose(got, layer(x), atol=1e-5)
    layer.algorithm = "triton_contract"
    with pytest.raises(ValueError, match="it supports float32, bfloat16, float16, got torch.float64"):
        layer.double()(x.double())


def test_schemas_are_those_of_the_compiled_ops():
    for name in ("fprop", "backward"):
        compiled = str(getattr(torch.ops.gconv_ext, f"contract_{name}").default._schema)
        assert str(getattr(torch.ops.gconv_ext, f"triton_contract_{name}").default._schema) == compiled.replace(
            "::", "::triton_", 1
        )
