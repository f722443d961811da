"""reference against the definition written out in loops; dense against reference."""

import itertools

import cases
import numpy as np
import pytest
import torch

from gconv_ext import functional


def definition(kind, arguments, group, stride=1, padding=0, dilation=1, groups=1):
    """y[o, u, p] = bias[o] + Σ_c Σ_v Σ_t ψ[o, c, u⁻¹v, u⁻¹t] x[c, v, p + t], from the tables of the group alone."""
    x, weight, *relaxed, bias = [None if a is None else a.numpy() for a in arguments]
    lifting = cases.is_lifting(kind)
    if not relaxed:
        weight, relaxed = weight[None], [np.ones((1, group.order))]
    w = relaxed[0]
    if lifting:
        x, weight = x[:, :, None], weight[:, :, :, None]
    _, out_fields, in_fields, _, k, _ = weight.shape
    x = np.pad(x, ((0, 0), (0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows, columns = [(n - dilation * (k - 1) - 1) // stride + 1 for n in x.shape[-2:]]
    y = np.zeros((x.shape[0], out_fields, group.order, rows, columns))
    for o, u, c in itertools.product(range(out_fields), range(group.order), range(in_fields)):
        field = c + o // (out_fields // groups) * in_fields
        u_inverse = group.inverse[u].item()
        for v, a, b in itertools.product(range(x.shape[2]), range(k), range(k)):
            t = np.array([2 * a - k + 1, 2 * b - k + 1])
            i, j = (group.matrices[u_inverse].numpy() @ t + k - 1) // 2
            relative = 0 if lifting else group.product[u_inverse, v].item()
            weighted = w[:, v] if cases.relax_on(kind) == "input" else w[:, u]
            tap = (weighted * weight[:, o, c, relative, i, j]).sum()
            top, left = dilation * a, dilation * b
            patch = x[:, field, v, top : top + stride * (rows - 1) + 1 : stride, left : left + stride * (columns - 1) + 1 : stride]
            y[:, o, u] += tap * patch
    return torch.from_numpy(y if bias is None else y + bias[:, None, None, None])


@pytest.mark.parametrize("options", [
    dict(k=1), dict(k=2), dict(k=3, padding=1), dict(k=3, stride=2, padding=1), dict(k=4, padding=2, dilation=2),
    dict(k=5, padding=2, bias=False), dict(k=3, groups=2, in_fields=4, out_fields=2),
])  # fmt: skip
@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep"])
def test_against_the_definition(kind, group, options, algorithm):
    made = {name: options[name] for name in ("k", "bias", "groups", "in_fields", "out_fields") if name in options}
    planar = {name: options[name] for name in ("stride", "padding", "dilation", "groups") if name in options}
    arguments = cases.make(kind, group, **made)
    expected = definition(kind, arguments, group, **planar)
    got = cases.call(kind, arguments, group, algorithm=algorithm, **planar)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("k", range(1, 8))
@pytest.mark.parametrize("stride, padding, dilation", list(itertools.product((1, 2, 3), (0, 1, 3), (1, 2))))
def test_compiled_algorithms_agree_with_reference(kind, group, k, stride, padding, dilation):
    arguments = cases.make(kind, group, k=k, size=(15, 13), batch=1, in_fields=1, out_fields=2)
    options = dict(stride=stride, padding=padding, dilation=dilation)
    expected = cases.call(kind, arguments, group, algorithm="reference", **options)
    for algorithm in ("dense", "irrep"):
        got = cases.call(kind, arguments, group, algorithm=algorithm, **options)
        assert got.shape == expected.shape
        assert (got - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep", "auto"])
def test_low_precision_with_gradients(kind, group, dtype, algorithm):
    """No worse than twice the error of the reference in the same precision (the reference itself: exactly that).  The worst of
    some draws: in one, roundings of the reference may cancel in the few numbers of a relaxed weight's gradient."""

    def run(arguments, cotangent, dtype, algorithm):
        typed = [a.to(dtype).requires_grad_() for a in arguments]
        y = cases.call(kind, typed, group, padding=1, algorithm=algorithm)
        assert y.dtype == dtype
        return [result.double() for result in (y, *torch.autograd.grad(y, typed, cotangent.to(dtype)))]

    worst = lambda results, wants: max(float((result - want).abs().max()) for result, want in zip(results, wants))
    draws = [[a.to(dtype).double() for a in cases.make(kind, group, size=(9, 9))] for _ in range(4)]
    draws = [(arguments, torch.randn(2, 3, group.order, 9, 9).to(dtype).double()) for arguments in draws]
    exacts, plains, gots = (
        list(zip(*(run(*draw, *how) for draw in draws)))  # [result][draw]
        for how in ((torch.float64, "reference"), (dtype, "reference"), (dtype, algorithm))
    )
    for got, plain, want in zip(gots, plains, exacts):
        assert worst(got, want) <= 2 * worst(plain, want) + 1e-5 * max(1, *(float(w.abs().max()) for w in want))


def test_expand_filter_is_the_filter_of_conv2d(kind, group):
    x, *bank, bias = cases.make(kind, group)
    filter = functional.expand_filter(*bank, group=group, relax_on=cases.relax_on(kind))
    planes = x if cases.is_lifting(kind) else x.flatten(1, 2)
    y = torch.nn.functional.conv2d(planes, filter, bias.repeat_interleave(group.order), padding=1)
    expected = cases.call(kind, [x, *bank, bias], group, padding=1)
    assert torch.allclose(y.unflatten(1, (-1, group.order)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep"])
@pytest.mark.parametrize("batch, size", [(0, (5, 5)), (1, (3, 3)), (1, (1, 1)), (3, (2, 9))])
def test_small_and_empty_inputs(kind, group, algorithm, batch, size):
    arguments = [a.requires_grad_() for a in cases.make(kind, group, batch=batch, size=size)]
    y = cases.call(kind, arguments, group, padding=1, algorithm=algorithm)
    assert y.shape == (batch, 3, group.order, *size)
    y.sum().backward()
    assert all(a.grad is not None and a.grad.shape == a.shape for a in arguments)


@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep"])
def test_strided_inputs(kind, group, algorithm):
    """Sliced, expanded, transposed and channels-last arguments give what contiguous ones give."""
    arguments = cases.make(kind, group, size=(6, 6))
    expected = cases.call(kind, arguments, group, padding=1, algorithm=algorithm)

    def strided(a):
        return torch.stack([torch.full_like(a, torch.nan), a], dim=-1)[..., 1]

    got = cases.call(kind, [strided(a) for a in arguments], group, padding=1, algorithm=algorithm)
    assert torch.allclose(got, expected, rtol=0, atol=1e-12)

    x = arguments[0]
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    got = cases.call(kind, [last, *arguments[1:]], group, padding=1, algorithm=algorithm)
    assert torch.allclose(got, expected, rtol=0, atol=1e-12)

    one = x[:1].expand_as(x)
    got = cases.call(kind, [one, *arguments[1:]], group, padding=1, algorithm=algorithm)
    assert torch.allclose(got, expected[:1].expand_as(expected), rtol=0, atol=1e-12)


def test_the_memory_format_of_the_image_flows_through(group):
    """A channels-last image gives a map whose planes are channels-last, so that no layer converts."""
    x = torch.randn(2, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    y = functional.lifting_conv2d(x, torch.randn(4, 3, 3, 3), group=group, padding=1)
    y = functional.group_conv2d(y.relu(), torch.randn(4, 4, group.order, 3, 3), group=group, padding=1)
    assert y.flatten(1, 2).is_contiguous(memory_format=torch.channels_last)


def test_constant_relaxed_weights_are_the_strict_layer(kind, group):
    if "relaxed" not in kind:
        pytest.skip("strict")
    x, weight, relaxed_weight, bias = cases.make(kind, group, banks=3)
    relaxed_weight = relaxed_weight[:, :1].expand(-1, group.order)
    summed = torch.einsum("l,l...->...", relaxed_weight[:, 0], weight)
    strict = "lifting" if cases.is_lifting(kind) else "group"
    got = cases.call(kind, [x, weight, relaxed_weight, bias], group, padding=1)
    assert torch.allclose(got, cases.call(strict, [x, summed, bias], group, padding=1), rtol=0, atol=1e-12)


def test_expansion_does_not_depend_on_threads(kind, group):
    arguments = [a.requires_grad_() for a in cases.make(kind, group, in_fields=32, out_fields=32, dtype=torch.float32)]
    bank = arguments[1:-1]

    def run(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            filter = functional.expand_filter(*bank, group=group, relax_on=cases.relax_on(kind))
            return [filter, *torch.autograd.grad(filter, bank, torch.sin(torch.arange(filter.numel())).view_as(filter))]
        finally:
            torch.set_num_threads(before)

    for one, two, again in zip(run(1), run(2), run(2)):
        assert torch.equal(one, two) and torch.equal(two, again)
