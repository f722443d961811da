"""Every argument of every public function and of every op, wrong in many ways: a clear error or a result, never
anything else."""

import inspect
import math
import re

import pytest
import torch

import gconv_ext
from gconv_ext import functional, nn

X, IMAGE = torch.randn(2, 2, 4, 6, 6), torch.randn(2, 2, 6, 6)
WEIGHT, LIFT = torch.randn(2, 2, 4, 3, 3), torch.randn(2, 2, 3, 3)
BANKS, LIFT_BANKS, RELAXED = torch.randn(3, 2, 2, 4, 3, 3), torch.randn(3, 2, 2, 3, 3), torch.randn(3, 4)
BIAS = torch.randn(2)
PLANAR = dict(group="C4", stride=1, padding=1, dilation=1, groups=1, algorithm="auto")
ACTIVATION = dict(activation="relu")

FUNCTIONS = {
    functional.lifting_conv2d: dict(x=IMAGE, weight=LIFT, bias=BIAS, **PLANAR, **ACTIVATION),
    functional.group_conv2d: dict(x=X, weight=WEIGHT, bias=BIAS, **PLANAR, **ACTIVATION),
    functional.group_conv_transpose2d: dict(x=X, weight=WEIGHT, bias=BIAS, **PLANAR, output_padding=0),
    functional.relaxed_lifting_conv2d: dict(
        x=IMAGE, weight=LIFT_BANKS, relaxed_weight=RELAXED, bias=BIAS, **PLANAR, **ACTIVATION, relax_on="output"),
    functional.relaxed_group_conv2d: dict(
        x=X, weight=BANKS, relaxed_weight=RELAXED, bias=BIAS, **PLANAR, **ACTIVATION, relax_on="input"),
    functional.expand_filter: dict(weight=BANKS, relaxed_weight=RELAXED, group="C4", relax_on="input"),
    gconv_ext.explain: dict(
        x=X, weight=BANKS, relaxed_weight=RELAXED, bias=BIAS, **PLANAR, **ACTIVATION, relax_on="input"),
    gconv_ext.transform_image: dict(x=IMAGE, group="C4", g=1),
    gconv_ext.transform_feature_map: dict(x=X, group="C4", g=1),
    gconv_ext.equivariance_error: dict(fn=torch.nn.Identity(), x=X, group="C4"),
    gconv_ext.exactness: dict(model=nn.LiftingConv2d(2, 2, 3), input_size=6, channels=2),
    gconv_ext.to_conv2d: dict(model=nn.GroupConv2d(2, 2, 3)),
    gconv_ext.create_model: dict(name="p4cnn"),
    gconv_ext.PointGroup: dict(name="C4"),
}  # fmt: skip

STRANGE = [
    None, True, -1, 0, 2**31, 2**63, 2**70, 1.5, math.nan, "", "C3", b"C4", (), (1,), (1, 2), [1, 1, 1], {}, object(),
    torch.float32, len,
]  # fmt: skip
DTYPES = (torch.int64, torch.bool, torch.complex64, torch.float64, torch.float16, torch.float8_e5m2)


def wrong_shapes(good):
    yield from (good[None], good.sum(), good.flatten(), good[:0], good[..., :0], good[..., :1], good[:1])
    yield from (torch.cat([good, good]), good.numpy(), [good])


def wrong_kinds(good):
    """Of the same shape, and another dtype, layout or device."""
    yield from (good.to(dtype) for dtype in DTYPES)
    yield from (good.to("meta"), good.to_sparse(), torch.quantize_per_tensor(good, 0.1, 0, torch.qint8))
    yield from (torch.full_like(good, torch.nan), torch.nested.nested_tensor([*good] if good.dim() > 1 else [good]))


def attempts(arguments, kinds):
    """The arguments with one of them wrong."""
    for name, good in arguments.items():
        bad = [*STRANGE]
        if isinstance(good, torch.Tensor):
            bad += [*wrong_shapes(good), *(wrong_kinds(good) if kinds else [])]
        for value in bad:
            yield name, value, arguments | {name: value}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_public_functions(function):
    """TypeError or ValueError, which names the argument or what it does not agree with."""
    arguments = FUNCTIONS[function]
    parameters = inspect.signature(function.__init__ if isinstance(function, type) else function).parameters
    assert set(arguments) == set(parameters) - {"self", "options"}
    function(**arguments)
    refused = 0
    # Images and maps of any dtype can be moved.
    for name, bad, changed in attempts(arguments, kinds=function.__module__ == "gconv_ext.functional"):
        try:
            function(**changed)
        except (TypeError, ValueError) as error:
            refused += 1
            assert re.search(rf"\b({'|'.join(arguments)}|unknown)\b", str(error)), (name, bad, error)
    assert refused >= 10


# Arguments of layers that only some values are right for.
CHECKED = {
    "in_channels", "out_channels", "kernel_size", "num_features", "stride", "padding", "dilation", "groups",
    "output_padding", "output_size", "padding_mode", "algorithm", "activation", "num_filter_banks", "relax_on",
    "group", "elements", "soft",
    "rotations", "kernel", "taps", "reduce", "mode", "scale_factor", "blur_size", "hidden", "hidden_channels",
}  # fmt: skip
LAYERS = [kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, torch.nn.Module)]


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind is not nn.GroupBatchNorm2d])  # which PyTorch makes
def test_layers(kind):
    """As above, of each layer's constructor."""
    good = dict(in_channels=2, out_channels=2, kernel_size=3, num_features=2, output_size=4, coordinates=2, outputs=2)
    good |= dict(network=torch.nn.Identity(), taps=[[0, 1, 0], [1, 2, 1], [0, 1, 0]])
    parameters = inspect.signature(kind).parameters.values()
    arguments = {parameter.name: good.get(parameter.name, parameter.default) for parameter in parameters}
    kind(**arguments)
    for name, bad, changed in attempts(arguments, kinds=False):
        # So many fields are no error, but do not fit into memory.
        if name not in CHECKED or bad is True or (type(bad) is int and bad >= 2**31):
            continue
        try:
            kind(**changed)
        except (TypeError, ValueError) as error:
            assert re.search(rf"\b({'|'.join(arguments)})\b", str(error)), (name, bad, error)


PAIRS = dict(stride=[1, 1], padding=[1, 1], dilation=[1, 1])
NAMES = dict(group="C4", relax_on="output")
TRANSFORMED = torch.ops.gconv_ext.irrep_transform_weight(WEIGHT, None, "C4", "output", 1)
HIDDEN, LAST = torch.randn(6, 6, 4, 4, 9, 5), torch.randn(2, 2, 5)
CONTRACTED = dict(x=X, hidden=HIDDEN, weight=LAST, stride=1, padding=1)

OPS = {
    "expand_filter": dict(weight=BANKS, relaxed_weight=RELAXED, **NAMES),
    "expand_filter_backward": dict(
        grad_filter=torch.randn(8, 8, 3, 3), weight=BANKS, relaxed_weight=RELAXED, **NAMES, output_mask=[True, True]),
    "irrep_fprop": dict(
        x=X, weight=WEIGHT, relaxed_weight=None, bias=BIAS, transformed_weight=TRANSFORMED, **NAMES, **PAIRS, groups=1,
        relu=True),
    "irrep_transform_weight": dict(weight=BANKS, relaxed_weight=RELAXED, **NAMES, groups=1),
    "irrep_dgrad": dict(
        dy=X, weight=BANKS, relaxed_weight=RELAXED, activated=X, **NAMES, input_size=[6, 6], **PAIRS, groups=1),
    "irrep_wgrad": dict(x=X, dy=X, relaxed_weight=RELAXED, activated=X, **NAMES, kernel_size=3, **PAIRS, groups=1),
    "contract_fprop": CONTRACTED,
    "contract_backward": dict(dy=X, **CONTRACTED, output_mask=[True, True, True]),
}  # fmt: skip
WRONG_PAIRS = [[], [1], [1, 1, 1], [0, 0], [-1, -1], [2**31, 1], [2**62, 2**62], [-(2**63), 1]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPS)
def test_ops(name):
    """The C++ checks behind torch.ops: an exception or a result of a sensible size, never a crash."""
    op, arguments = getattr(torch.ops.gconv_ext, name), OPS[name]
    op(**arguments)
    refused = 0
    for argument, good in arguments.items():
        bad = [*STRANGE, *(WRONG_PAIRS if isinstance(good, list) else [])]
        bad += [*wrong_shapes(good), *wrong_kinds(good)] if isinstance(good, torch.Tensor) else [X]
        for value in bad:
            try:
                results = op(**arguments | {argument: value})
            except (ValueError, TypeError, RuntimeError, NotImplementedError, OverflowError):
                refused += 1
                continue
            for result in results if isinstance(results, tuple) else [results]:
                assert result.is_meta or result.is_nested or result.shape.numel() < 10**6
    assert refused >= 10
