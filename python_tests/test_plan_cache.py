"""Plans of calls are remembered; what is remembered never answers for a call that differs from it."""

from enum import IntEnum

import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from gconv_ext import PointGroup, algorithms, checks, functional, nn, ops, plan_cache

X, WEIGHT = torch.randn(2, 3, 4, 7, 6), torch.randn(5, 3, 4, 3, 3)
BANKS, RELAXED = torch.randn(2, 5, 3, 4, 3, 3), torch.randn(2, 4)


@pytest.fixture(autouse=True)
def plans(monkeypatch):
    """A cache of the test's own."""
    cache = plan_cache.PlanCache()
    monkeypatch.setattr(functional, "_plans", cache)
    return cache


@pytest.fixture
def checked(monkeypatch):
    """A list that grows by one whenever a call is checked."""
    calls, check = [], checks.check_convolution
    monkeypatch.setattr(checks, "check_convolution", lambda *args: calls.append(1) or check(*args))
    return calls


def convolve(x=X, weight=WEIGHT, bias=None, group="C4", **options):
    return functional.group_conv2d(x, weight, bias, group=group, **options)


@pytest.mark.parametrize("algorithm", ["auto", "reference", "dense", "irrep"])
def test_a_call_like_an_earlier_one_is_not_checked_again(checked, algorithm):
    first = convolve(algorithm=algorithm)
    other = convolve(X + 1, WEIGHT + 1, algorithm=algorithm)
    assert len(checked) == 1 and not torch.equal(first, other)
    assert torch.equal(convolve(algorithm=algorithm), first) and len(checked) == 1


def test_a_layer_is_checked_once_for_each_size(checked):
    layer = nn.GroupConv2d(3, 5, 3, padding=1, bias=False)
    for size in (5, 6, 5, 6):
        for _ in range(2):
            assert layer(torch.randn(1, 3, 4, size, size)).shape[-1] == size
    assert len(checked) == 2


@pytest.mark.parametrize("options, error", [
    (dict(x=X.double()), TypeError),
    (dict(x=X[:, :2]), ValueError),
    (dict(x=X[..., :0]), ValueError),
    (dict(x=X.numpy()), TypeError),
    (dict(x=X.to_sparse()), TypeError),
    (dict(x=torch.nested.nested_tensor([X[0], X[1, ..., :5]])), TypeError),
    (dict(weight=WEIGHT[..., :2]), ValueError),
    (dict(weight=None), TypeError),
    (dict(bias=torch.randn(4)), ValueError),
    (dict(group="C8"), ValueError),
    (dict(groups=2), ValueError),
    (dict(stride=(1, 2)), ValueError),
    (dict(algorithm="best"), ValueError),
    (dict(algorithm=["auto"]), ValueError),
    (dict(activation="tanh"), ValueError),
    # Equal to 1, but no int.
    *[({name: value}, TypeError) for name in ("stride", "padding", "dilation") for value in (True, 1.0, (1, True), (1.0, 1))],
    (dict(groups=True), TypeError),
    (dict(groups=1.0), TypeError),
])  # fmt: skip
def test_errors_come_after_a_right_call_too(options, error):
    (name,) = options
    convolve(stride=1, padding=1, dilation=1, groups=1)
    convolve(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)
    for _ in range(2):
        with pytest.raises(error, match=name):
            convolve(**dict(stride=1, padding=1, dilation=1, groups=1) | options)


@pytest.mark.parametrize("algorithm", algorithms.ALGORITHMS[1:])
def test_only_dense_and_compiled_irrep_keep(monkeypatch, algorithm):
    """Triton's interpreter computes on the CPU too, and must not be passed over."""
    family = "" if algorithm in ("reference", "dense") else algorithm
    monkeypatch.setitem(algorithms._SUPPORT, algorithm, lambda weight: algorithms.Support(family))
    call = algorithms.Convolution(X, WEIGHT, None, None, PointGroup("C4"), "output", (1, 1), (0, 0), (1, 1), 1, None)
    assert algorithms.plan(call, algorithm).keep == (algorithm in ("dense", "irrep"))
    call.x.requires_grad_()
    assert algorithms.plan(call, algorithm).keep == (algorithm == "dense")
    call.x.requires_grad_(False)


def test_strict_and_relaxed_calls_are_told_apart():
    convolve(weight=WEIGHT)
    functional.relaxed_group_conv2d(X, BANKS, RELAXED, group="C4")
    with pytest.raises(ValueError, match="weight"):
        convolve(weight=BANKS)
    with pytest.raises(TypeError, match="relaxed_weight"):
        functional.relaxed_group_conv2d(X, BANKS, None, group="C4")
    with pytest.raises(ValueError, match="x must have 4 dimensions"):
        functional.lifting_conv2d(X, WEIGHT[:, :, 0], group="C4")


@pytest.mark.parametrize("algorithm", ["auto", "dense", "irrep"])
def test_gradients_are_taken_after_a_call_without(algorithm):
    parameter = torch.nn.Parameter(WEIGHT)
    with torch.no_grad():
        want = convolve(weight=parameter, algorithm=algorithm)
    for x, weight in ((X, parameter), (X.clone().requires_grad_(), WEIGHT)):
        for _ in range(2):
            got = convolve(x, weight, algorithm=algorithm)
            assert torch.allclose(got, want, atol=1e-4)
            assert torch.autograd.grad(got.sum(), [t for t in (x, weight) if t.requires_grad])[0].abs().sum() > 0
    assert not convolve(algorithm=algorithm).requires_grad


def test_the_choice_follows_what_it_depends_on():
    """The memory format, gradients and autocast; each asked again after the other."""
    image, lift = torch.randn(64, 3, 28, 28), torch.randn(2, 3, 3, 3)
    for _ in range(2):
        for x in (image, image.to(memory_format=torch.channels_last)):
            functional.lifting_conv2d(x, lift, group="D4")
    assert [plan.algorithm for plan in functional._plans._plans.values()] == ["irrep", "dense"]
    with torch.autocast("cpu"):
        assert convolve().dtype == convolve(X.bfloat16()).dtype == torch.bfloat16
    assert convolve().dtype == torch.float32
    with pytest.raises(TypeError, match="x must have weight's dtype"):
        convolve(X.bfloat16())


def test_transforms_and_traces_pass_the_cache_by(plans):
    convolve()
    (key,) = plans._plans
    mapped = torch.func.vmap(lambda x: convolve(x[None])[0])(X)
    assert torch.allclose(mapped, convolve(), atol=1e-4)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(convolve(forward_ad.make_dual(X, X))).tangent
    assert torch.allclose(tangent, convolve(), atol=1e-4)
    graph = make_fx(lambda x, weight: convolve(x, weight), tracing_mode="symbolic")(X, WEIGHT)
    assert graph(X[:1, ..., :5], WEIGHT).shape == (1, 5, 4, 5, 3)
    with FlopCounterMode(display=False):
        convolve(X[..., :5])
    assert list(plans._plans) == [key]
    with torch.device("meta"):
        assert convolve(torch.empty(2, 3, 4, 7, 6), torch.empty(5, 3, 4, 3, 3)).is_meta

    class Marked(torch.Tensor):
        pass

    known = list(plans._plans)
    assert type(convolve(X.as_subclass(Marked))) is Marked
    assert list(plans._plans) == known


class Level(IntEnum):
    ONE = 1


class Text(str):
    pass


def test_signatures_differ_wherever_checks_may():
    a = torch.zeros(2, 3)
    calls = [
        (a,), (a, a), (a, None), (a.T,), (a[:1],), (a.double(),), (a.view(6),), (a[None],), (a.to("meta"),),
        (a.clone().requires_grad_(),), (1,), (2,), (True,), (False,), (None,), ("1",), ("",), ("C4",), (PointGroup("C4"),),
        (PointGroup("C2"),), ((1, 1),), ((1, True),), ((),), ((1,),), (1, 1), ("a", "b"), ("ab",), (-1,), (2**40,),
    ]  # fmt: skip
    seen = [ops.signature(*call) for call in calls]
    with torch.no_grad():
        seen.append(ops.signature(*calls[0]))
    assert None not in seen and len(set(seen)) == len(seen)
    assert ops.signature(a) == ops.signature(a + 1) == ops.signature(torch.nn.Parameter(a, requires_grad=False))
    assert ops.signature(PointGroup("C4")) == ops.signature(PointGroup("p4"))


@pytest.mark.parametrize("argument", [
    1.0, [1, 1], Level.ONE, Text("C4"), 2**70, "x" * 2000, "\ud800", (1, [2]), X.numpy(), X.to_sparse(), object(), X.as_subclass(type("Sub", (torch.Tensor,), {})),
    torch.nested.nested_tensor([X[0], X[1, ..., :5]]),
])  # fmt: skip
def test_unusual_arguments_have_no_signature(argument):
    assert ops.signature(argument) is None and ops.signature(X, argument) is None


def test_the_cache_is_bounded(plans, monkeypatch):
    monkeypatch.setattr(plan_cache, "_MOST_PLANS", 3)
    for _ in range(2):
        for height in range(3, 9):
            assert convolve(torch.randn(1, 3, 4, height, 5)).shape[-2:] == (height - 2, 3)
            assert 1 <= len(plans._plans) <= 3
