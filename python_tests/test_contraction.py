"""The contraction behind soft translation: the compiled kernels and the PyTorch form against the definition."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from gconv_ext import contraction_blocks, ops
from gconv_ext.contraction import contract, reference

# batch, C, M, I, O, D, k, stride, padding, height, width
CASES = {
    "one of all": (1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1),
    "a row": (2, 3, 1, 1, 2, 5, 3, 1, 1, 1, 7),
    "elements": (2, 4, 3, 2, 5, 7, 3, 1, 1, 5, 4),
    "strides": (3, 17, 2, 1, 3, 9, 2, 2, 1, 6, 5),
    "pixels left over": (1, 33, 1, 2, 4, 11, 3, 2, 0, 6, 8),
    "much padding": (2, 16, 1, 1, 1, 32, 3, 1, 4, 2, 3),
    "many terms": (1, 40, 4, 1, 2, 3, 5, 1, 2, 3, 3),
    # Many images, for which it is less work to render filters, block by block.
    "many images": (40, 3, 1, 1, 3, 9, 3, 1, 1, 4, 5),
    "many images of elements": (50, 5, 2, 3, 2, 17, 2, 2, 1, 3, 4),
}


def make(case, dtype=torch.float64, **changed):
    batch, c, m, i, o, d, k, stride, padding, height, width = CASES[case]
    batch = changed.get("batch", batch)
    sizes = [(n + 2 * padding - k) // stride + 1 for n in (height, width)]
    x, hidden = torch.randn(batch, c, m, height, width), torch.randn(*sizes, i, m, k * k, d)
    return [t.to(dtype) for t in (x, hidden, torch.randn(o, c, d))], dict(stride=stride, padding=padding)


def passes(function, arguments, **options):
    inputs = [a.detach().requires_grad_() for a in arguments]
    y = function(*inputs, **options)
    dy = torch.cos(torch.arange(y.numel())).view_as(y).to(y.dtype)
    return [y, *torch.autograd.grad(y, inputs, dy)]


@pytest.fixture(params=["compiled", "blocks"])
def form(request, monkeypatch):
    """Both implementations of the ops on the CPU."""
    if request.param == "compiled":
        assert ops.is_compiled("contract_fprop", torch.device("cpu")) and ops.is_compiled(
            "contract_backward", torch.device("cpu")
        )
    else:
        use_blocks(monkeypatch)
    return request.param


def use_blocks(monkeypatch):
    monkeypatch.setattr(ops, "contract_fprop", lambda kernels, *arguments: contraction_blocks._fprop(*arguments))
    monkeypatch.setattr(ops, "contract_backward", lambda kernels, *arguments: contraction_blocks._backward(*arguments))


@pytest.mark.parametrize("case", list(CASES))
def test_values_and_gradients(case, form):
    arguments, options = make(case)
    got, want = passes(contract, arguments, **options), passes(reference, arguments, **options)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.is_contiguous() and torch.allclose(a, b, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", ["elements", "strides", "much padding", "many images"])
def test_precision(case, form, dtype):
    """No worse than twice the error of plain PyTorch in the same precision."""
    arguments, options = make(case, dtype)
    exact = passes(reference, [a.double() for a in arguments], **options)
    plain, got = passes(reference, arguments, **options), passes(contract, arguments, **options)
    for a, b, want in zip(got, plain, exact, strict=True):
        assert a.dtype == dtype
        assert (a - want).abs().max() <= 2 * (b - want).abs().max() + 1e-5 * want.abs().max()


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "sizes",
    [
        (2, 64, 1, 2, 64, 40, 3, 1, 1, 13, 9),
        (120, 24, 1, 1, 24, 24, 3, 1, 1, 13, 9),
        (2, 3, 1, 1, 4, 5, 5, 2, 4, 25, 4),
    ],
)
def test_several_compiled_blocks(sizes, threads, monkeypatch):
    """More sites than a block holds, in both orders, and parts for several threads; the same bits whoever computes
    what."""
    monkeypatch.setitem(CASES, "large", sizes)
    arguments, options = make("large")
    got = passes(contract, arguments, **options)
    for a, b in zip(got, passes(reference, arguments, **options), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-9)
    for _ in range(3):
        for a, b in zip(passes(contract, arguments, **options), got, strict=True):
            assert torch.equal(a, b)


def test_pytorch_blocks_of_any_size(monkeypatch):
    """Single pixels, parts of rows, several rows, all."""
    use_blocks(monkeypatch)
    arguments, options = make("elements")
    want = passes(reference, arguments, **options)
    for size in (1, 1000, 4000, 8000, 1 << 20):
        monkeypatch.setitem(contraction_blocks._BLOCK_BYTES, "cpu", size)
        for a, b in zip(passes(contract, arguments, **options), want, strict=True):
            assert torch.allclose(a, b, atol=1e-11), size


@pytest.mark.parametrize("case", ["elements", "many images of elements"])
def test_only_the_gradients_that_are_needed(case, form):
    arguments, options = make(case)
    want = passes(reference, arguments, **options)[1:]
    for needed in range(3):
        inputs = [a.clone().requires_grad_(index == needed) for index, a in enumerate(arguments)]
        y = contract(*inputs, **options)
        y.backward(torch.cos(torch.arange(y.numel())).view_as(y).double())
        assert [a.grad is not None for a in inputs] == [index == needed for index in range(3)]
        assert torch.allclose(inputs[needed].grad, want[needed], atol=1e-11)


def test_derivatives(form):
    arguments, options = make("elements")
    inputs = [arguments[0][:1, :1, :1, :2, :2], torch.randn(2, 2, 2, 1, 9, 2).double(), torch.randn(2, 1, 2).double()]
    inputs = [a.clone().requires_grad_() for a in inputs]
    assert gradcheck(lambda *a: contract(*a, **options), inputs)
    assert gradgradcheck(lambda *a: contract(*a, **options), inputs)


def test_views_and_other_formats(form):
    arguments, options = make("elements")
    want = passes(reference, arguments, **options)
    x, hidden, weight = arguments
    strided = [
        x.clone(memory_format=torch.channels_last_3d),
        torch.stack([hidden, hidden], -1)[..., 1],
        weight.transpose(0, 2).contiguous().transpose(0, 2),
    ]
    assert not any(a.is_contiguous() for a in strided)
    for a, b in zip(passes(contract, strided, **options), want, strict=True):
        assert torch.allclose(a, b, atol=1e-11)


@pytest.mark.parametrize("case", ["strides", "many images"])
def test_what_lies_outside_is_not_read(case, form):
    """Padding and the ends of rows: a NaN there would spread.  The bits of the blocks' products, which are PyTorch's, depend on
    where in memory numbers lie, on some processors."""
    arguments, options = make(case, torch.float32)
    want = passes(contract, arguments, **options)
    surrounded = []
    for a in arguments:
        wide = a.new_full([n + 2 for n in a.shape], torch.nan)
        inside = wide[tuple(slice(1, -1) for _ in a.shape)]
        inside.copy_(a)
        surrounded.append(inside)
    for a, b in zip(passes(contract, surrounded, **options), want, strict=True):
        assert torch.equal(a, b) if form == "compiled" else torch.allclose(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


def test_empty_batch(form):
    arguments, options = make("elements", batch=0)
    y, *grads = passes(contract, arguments, **options)
    assert y.shape == (0, 5, 2, 5, 4)
    for grad, a in zip(grads, arguments):
        assert grad.shape == a.shape and not grad.any()


@pytest.mark.parametrize("case", ["many terms", "many images"])
def test_two_runs_give_the_same_bits(case, form):
    arguments, options = make(case, torch.float32)
    first = [a.clone() for a in passes(contract, arguments, **options)]
    for a, b in zip(passes(contract, arguments, **options), first, strict=True):
        assert torch.equal(a, b)


def test_opcheck():
    (x, hidden, weight), options = make("elements", torch.float32)
    torch.library.opcheck(torch.ops.gconv_ext.contract_fprop, (x, hidden, weight, *options.values()))
    dy = ops.contract_fprop("contract", x, hidden, weight, *options.values())
    for mask in ([True] * 3, [True, False, False], [False, True, True]):
        torch.library.opcheck(torch.ops.gconv_ext.contract_backward, (dy, x, hidden, weight, *options.values(), mask))


def test_func_transforms():
    (x, hidden, weight), options = make("elements")
    several = torch.stack([weight, -2 * weight])

    def loss(weight, function):
        return function(x, hidden, weight, **options).pow(3).sum()

    for transform in (
        lambda f: torch.func.vmap(lambda w: loss(w, f))(several),
        lambda f: torch.func.vmap(torch.func.grad(lambda w: loss(w, f)))(several),
    ):
        assert torch.allclose(transform(contract), transform(reference), rtol=1e-10)


BAD = {
    "x": (ValueError, dict(x=torch.ones(1, 2, 5, 5)), "x must be [B, C, M, H, W]"),
    "hidden": (ValueError, dict(hidden=torch.ones(5, 5, 1, 9, 4)), "hidden must be [H', W', I, M, k*k, D]"),
    "pixels": (ValueError, dict(hidden=torch.ones(4, 5, 1, 1, 9, 4)), "hidden must have shape [5, 5, 1, 1, 9, 4]"),
    "taps": (ValueError, dict(hidden=torch.ones(5, 5, 1, 1, 8, 4)), "hidden must have shape [5, 5, 1, 1, 9, 4]"),
    "weight": (ValueError, dict(weight=torch.ones(3, 1, 4)), "weight must have shape [3, 2, 4]"),
    "no field": (ValueError, dict(weight=torch.ones(0, 2, 4)), "at least one field"),
    "dtype": (TypeError, dict(x=torch.ones(1, 2, 1, 5, 5, dtype=torch.int32)), "x must be float64"),
    "dtypes": (TypeError, dict(weight=torch.ones(3, 2, 4).double()), "weight must have x's dtype Float, got Double"),
    "stride": (ValueError, dict(stride=0), "stride must be"),
    "small": (ValueError, dict(x=torch.ones(1, 2, 1, 5, 0)), "must have at least 3 rows and columns"),
}


@pytest.mark.parametrize("name", BAD)
def test_the_ops_check_their_own_arguments(name):
    error_type, changed, message = BAD[name]
    good = dict(
        x=torch.ones(1, 2, 1, 5, 5),
        hidden=torch.ones(5, 5, 1, 1, 9, 4),
        weight=torch.ones(3, 2, 4),
        stride=1,
        padding=1,
    )
    arguments = (good | changed).values()
    with pytest.raises(error_type) as error:
        torch.ops.gconv_ext.contract_fprop(*arguments)
    assert message in str(error.value)
    with pytest.raises(error_type) as error:
        torch.ops.gconv_ext.contract_backward(torch.ones(1, 3, 1, 5, 5), *arguments, [True] * 3)
    assert message in str(error.value)


def test_the_schemas_are_the_same_in_both_languages():
    for name, schema in contraction_blocks.SCHEMAS.items():
        assert str(getattr(torch.ops.gconv_ext, name).default._schema) == f"gconv_ext::{name}{schema}"
