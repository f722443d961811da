"""The Triton kernels against the reference: on a GPU where there is one, else in Triton's interpreter on the CPU, which knows
float32 and float16 alone and is slow, so that there each group meets a few of the cases."""

import cases
import pytest
import torch
from interpreter import needs_interpreter

from gconv_ext import PointGroup, explain, functional, ops, transform_feature_map, transform_image, triton_kernels

pytestmark = needs_interpreter
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
ALGORITHMS = ["triton_irrep", "triton_fused"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16] if GPU else [torch.float32]
FORMATS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.flatten(1, -3).clone(memory_format=torch.channels_last).unflatten(1, x.shape[1:-2]),
    "channels_last_3d": lambda x: x.clone(memory_format=torch.channels_last_3d if x.dim() == 5 else torch.channels_last),
}


@pytest.fixture(autouse=True)
def _kernels_run():
    assert triton_kernels.missing_reason() is None, triton_kernels.missing_reason()


def on_device(arguments, dtype=torch.float32):
    return [None if a is None else a.to(DEVICE, dtype) for a in arguments]


def assert_as_good(got, in_precision, exact):
    """No worse than twice the error of plain PyTorch in the same precision."""
    for a, plain, want in zip(got, in_precision, exact, strict=True):
        allowed = 2 * (plain.double() - want).abs().max() + 1e-5 * max(1, want.abs().max())
        assert (a.double() - want).abs().max() <= allowed


def passes(kind, arguments, group, algorithm, *, second=False, **options):
    """(y, gradients of all arguments, and when asked those of their squares)."""
    inputs = [a.detach().requires_grad_() for a in arguments if a is not None]
    y = cases.call(kind, [*inputs, None][: len(arguments)], group, algorithm=algorithm, **options)
    slope = torch.cos(torch.arange(y.numel(), device=y.device)).view_as(y).to(y.dtype)
    first = torch.autograd.grad(y, inputs, slope, create_graph=second)
    if not second:
        return [y, *first]
    squares = sum((grad / grad.detach().abs().max()).pow(2).sum() for grad in first)
    return [y, *first, *(grad for grad in torch.autograd.grad(squares, inputs, allow_unused=True) if grad is not None)]


CASES = [
    dict(k=3),
    dict(k=2, planar=dict(stride=2), groups=2, in_fields=4, out_fields=4),
    dict(k=3, size=(7, 9), planar=dict(stride=3, dilation=2, padding=2), format="channels_last"),
    dict(k=4, planar=dict(padding=2, activation="relu"), format="channels_last_3d"),
    dict(k=1, planar=dict(padding=3, stride=2), in_fields=17, out_fields=18, size=(1, 4), bias=False),
]
SMALL = dict(k=2, size=(3, 4), batch=1, planar=dict(padding=0))  # for the interpreter
INTERPRETED = [
    *(("group", group, SMALL) for group in ("C1", "C2", "C4", "D1", "D2", "D4")),
    *((kind, "C4", SMALL) for kind in ("lifting", "relaxed lifting", "relaxed output", "relaxed input")),
    *(("group", "C4", case) for case in CASES[1:]),
    ("lifting", "D4", CASES[2]),
    ("relaxed input", "D2", CASES[1]),
    ("relaxed output", "D1", SMALL | dict(planar=dict(padding=1, activation="relu"), banks=3, bias=False, groups=2, in_fields=4, out_fields=4)),
    ("relaxed lifting", "C2", SMALL | dict(planar=dict(padding=1, activation="relu"))),
]


@pytest.mark.skipif(not GPU, reason="no GPU; the next test meets some of these cases in the interpreter")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_derivatives(kind, group, case, dtype, algorithm):
    check_case(kind, group, case, dtype, algorithm)


@pytest.mark.skipif(GPU, reason="the test before this one meets every case on the GPU")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind, group, case", INTERPRETED)
def test_values_and_gradients_interpreted(kind, group, case, algorithm):
    check_case(kind, PointGroup(group), case, torch.float32, algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_second_derivatives(algorithm):
    check_case("relaxed input", PointGroup("C2"), SMALL, torch.float32, algorithm, second=True)


def check_case(kind, group, case, dtype, algorithm, **derivatives):
    made = dict(case)
    planar, format = {"padding": 1, **made.pop("planar", {})}, FORMATS[made.pop("format", "contiguous")]
    x, *rest = cases.make(kind, group, dtype=dtype, **made)
    arguments = on_device([format(x), *rest], dtype)
    options = dict(groups=made.get("groups", 1), **planar, **derivatives)
    exact = passes(kind, [a if a is None else a.double() for a in arguments], group, "reference", **options)
    plain = passes(kind, arguments, group, "reference", **options)
    got = passes(kind, arguments, group, algorithm, **options)
    assert_as_good(got, plain, exact)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["lifting", "group"])
def test_the_memory_format_is_kept(kind, format, algorithm):
    x, weight, bias = on_device(cases.make(kind, PointGroup("C4"), in_fields=3, k=2))
    y = cases.call(kind, [FORMATS[format](x), weight, bias], "C4", algorithm=algorithm)
    want = cases.call(kind, [x, weight, bias], "C4", algorithm="reference")
    assert torch.allclose(y, want, atol=1e-5)
    # A lifting convolution's result follows an image's two formats; a GPU's convolutions give one of two.
    last = "channels_last_3d" if GPU else "channels_last" if kind == "lifting" else format
    assert y.stride() == FORMATS[format if format == "contiguous" else last](y).stride()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_views_need_no_copy(algorithm):
    """A slice of fields, every other row, an expanded batch."""
    x, weight, bias = on_device(cases.make("group", PointGroup("C4"), batch=1, in_fields=2, size=(6, 7)))
    whole = torch.randn(1, 5, 4, 12, 7, device=DEVICE)
    view = whole[:, 1:3, :, ::2].expand(2, -1, -1, -1, -1)
    got = functional.group_conv2d(view, weight, bias, group="C4", algorithm=algorithm)
    want = functional.group_conv2d(view.contiguous(), weight, bias, group="C4", algorithm="reference")
    assert torch.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind, sizes", [("group", dict(batch=0)), ("group", dict(size=(1, 1), k=1)), ("lifting", dict(batch=1, size=(3, 3)))])
def test_small_and_empty(kind, sizes, algorithm):
    arguments = on_device(cases.make(kind, PointGroup("C4"), **sizes))
    got = passes(kind, arguments, PointGroup("C4"), algorithm) if sizes.get("batch", 1) else [cases.call(kind, arguments, "C4", algorithm=algorithm)]
    want = passes(kind, arguments, PointGroup("C4"), "reference") if sizes.get("batch", 1) else [cases.call(kind, arguments, "C4", algorithm="reference")]
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["lifting", "group"])
def test_equivariance_to_the_bit(kind, group, dtype):
    """conv(g·x) == g·conv(x) with torch.equal, and dgrad likewise, for every element."""
    move = transform_image if kind == "lifting" else transform_feature_map
    sizes = dict(in_fields=3, out_fields=17, size=(5, 3), k=3 if kind == "lifting" else 2, batch=1)
    x, weight, bias = on_device(cases.make(kind, group, **sizes), dtype)

    def fprop(x):
        return cases.call(kind, [x, weight, bias], group, algorithm="triton_irrep", stride=1, padding=1)

    y = fprop(x)
    for g in range(group.order):
        assert torch.equal(fprop(move(x, group, g)), transform_feature_map(y, group, g))
    if kind == "group":
        options = (group.name, "output", [5, 3], [1, 1], [1, 1], [1, 1], 1)
        dx = ops.dgrad("triton_irrep", y, weight, None, None, *options)
        for g in range(group.order):
            moved = transform_feature_map(y, group, g)
            size = list(transform_feature_map(x, group, g).shape[-2:])
            got = ops.dgrad("triton_irrep", moved, weight, None, None, *options[:2], size, *options[3:])
            assert torch.equal(got, transform_feature_map(dx, group, g))


@pytest.mark.parametrize("kind", ["lifting", "group", "relaxed output"])
def test_the_transformed_weight(kind):
    """Made beforehand or in the kernel: the same bits."""
    x, weight, *rest = on_device(cases.make(kind, PointGroup("D4"), in_fields=3, batch=1, size=(4, 4)))
    relaxed_weight, bias = rest if len(rest) == 2 else (None, *rest)
    options = ("D4", "output", [1, 1], [1, 1], [1, 1], 1)
    transformed = ops.transform_weight("triton_irrep", weight, relaxed_weight, *options[:2], 1)
    results = [ops.fprop("triton_irrep", x, weight, relaxed_weight, bias, t, *options, True) for t in (None, transformed)]
    assert torch.equal(*results)


@pytest.mark.parametrize("kind, planar", [("group", {"stride": 2}), ("lifting", {}), ("relaxed output", {})])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_64_bit_offsets(kind, planar, algorithm, monkeypatch):
    """Every kernel has a form for maps past 2³¹ numbers; it computes the same."""
    from gconv_ext.triton_kernels import fused, irrep_fprop, irrep_wgrad

    arguments = on_device(cases.make(kind, PointGroup("C4"), size=(3, 4), batch=1, groups=2, in_fields=4, out_fields=4))
    results = [passes(kind, arguments, PointGroup("C4"), algorithm, groups=2, padding=1, **planar)]
    for module in (fused, irrep_fprop, irrep_wgrad):
        monkeypatch.setattr(module, "is_wide", lambda *maps: True)
    results.append(passes(kind, arguments, PointGroup("C4"), algorithm, groups=2, padding=1, **planar))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_shares_of_pixels_add_up(monkeypatch):
    """wgrad sums shares of the pixels in programs of their own."""
    from gconv_ext.triton_kernels import configurations

    x, weight, _ = on_device(cases.make("group", PointGroup("D1"), batch=2, size=(6, 6)))
    dy = torch.randn(2, 3, 2, 6, 6, device=DEVICE)
    options = (None, None, "D1", "output", 3, [1, 1], [1, 1], [1, 1], 1)
    results = []
    for least in (1, 1000):
        monkeypatch.setattr(configurations, "_LEAST_TILES", least)
        results.append([ops.wgrad(kernels, x, dy, *options) for kernels in ALGORITHMS])
    assert configurations.shares(72, 16, 1)[0] == 1
    for a, b in zip(*results):
        assert torch.allclose(a, b, atol=1e-4) and not torch.equal(a, b)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_opcheck(algorithm):
    x, banks, relaxed_weight, bias = on_device(cases.make("relaxed output", PointGroup("D1"), size=(4, 4), batch=1))
    x = FORMATS["channels_last_3d"](x)
    options = ("D1", "output", [1, 1], [1, 1], [1, 1], 1)
    named = getattr(torch.ops.gconv_ext, f"{algorithm}_fprop")
    y = named(x, banks, relaxed_weight, bias, None, *options, True)
    torch.library.opcheck(named, (x, banks, relaxed_weight, bias, None, *options, True))
    torch.library.opcheck(getattr(torch.ops.gconv_ext, f"{algorithm}_dgrad"), (y, banks, relaxed_weight, y, *options[:2], [4, 4], *options[2:]))
    torch.library.opcheck(getattr(torch.ops.gconv_ext, f"{algorithm}_wgrad"), (x, y, relaxed_weight, y, *options[:2], 3, *options[2:]))
    if algorithm == "triton_irrep":
        torch.library.opcheck(torch.ops.gconv_ext.triton_irrep_transform_weight, (banks, relaxed_weight, *options[:2], 1))


@pytest.mark.parametrize("kind", ["lifting", "group", "relaxed lifting", "relaxed output", "relaxed input"])
@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES], ids=str)
def test_expansion(kind, group, dtype):
    from gconv_ext.triton_kernels.expand_filter import expand_filter, expand_filter_backward

    _, weight, *rest = cases.make(kind, group, out_fields=5, in_fields=3, banks=3)
    relaxed_weight = rest[0] if "relaxed" in kind else None
    arguments = (*on_device([weight, relaxed_weight], dtype), group.name, cases.relax_on(kind))
    filter = functional.expand_filter(*arguments[:2], group=group, relax_on=arguments[3])
    got = expand_filter(*arguments)
    grad = torch.randn_like(filter)
    mask = [True, relaxed_weight is not None]
    exact = ops.expand_filter_backward(grad.double().cpu(), *(a if a is None else a.double().cpu() for a in arguments[:2]), *arguments[2:], mask)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 2e-2)
    assert torch.allclose(got, filter, rtol=tolerance, atol=tolerance)
    for a, want in zip(expand_filter_backward(grad, *arguments, mask), exact):
        assert a.shape == want.shape and torch.allclose(a.double().cpu(), want, rtol=tolerance, atol=tolerance * 10)


def test_schemas_are_those_of_the_compiled_ops():
    for name in ("fprop", "dgrad", "wgrad", "transform_weight"):
        compiled = str(getattr(torch.ops.gconv_ext, f"irrep_{name}").default._schema)
        for kernels in ALGORITHMS if name != "transform_weight" else ALGORITHMS[:1]:
            assert str(getattr(torch.ops.gconv_ext, f"{kernels}_{name}").default._schema) == compiled.replace("irrep_", f"{kernels}_", 1)
    for name in ("expand_filter", "expand_filter_backward"):
        compiled = str(getattr(torch.ops.gconv_ext, name).default._schema)
        assert compiled == f"gconv_ext::{name}({triton_kernels.OPS[name][0]}"


def test_what_they_support():
    x, weight, _ = on_device(cases.make("group", PointGroup("C4")), torch.float64)
    for algorithm in ALGORITHMS:
        with pytest.raises(ValueError, match="it supports float32, bfloat16, float16, got torch.float64"):
            functional.group_conv2d(x, weight, group="C4", algorithm=algorithm)
        with pytest.raises(ValueError, match="it supports tensors on a GPU, got meta"):
            functional.group_conv2d(x.to("meta"), weight.to("meta"), group="C4", algorithm=algorithm)
    assert explain(x, weight, group="C4").algorithm in ("dense", "irrep", "reference")
