"""Every refusal of the functions names the argument, what came and what was expected, before anything runs."""

import pytest
import torch

from gconv_ext import algorithms, explain, functional, ops
from gconv_ext.functional import expand_filter, group_conv2d, lifting_conv2d, relaxed_group_conv2d, relaxed_lifting_conv2d

X, IMAGE = torch.randn(2, 3, 4, 8, 8), torch.randn(2, 3, 8, 8)
WEIGHT, LIFT = torch.randn(5, 3, 4, 3, 3), torch.randn(5, 3, 3, 3)
BANKS, RELAXED = torch.randn(2, 5, 3, 4, 3, 3), torch.randn(2, 4)


def group(x=X, weight=WEIGHT, bias=None, group="C4", **options):
    return lambda: group_conv2d(x, weight, bias, group=group, **options)


def relaxed(x=X, weight=BANKS, relaxed_weight=RELAXED, bias=None, **options):
    return lambda: relaxed_group_conv2d(x, weight, relaxed_weight, bias, group="C4", **options)


VALUES = [
    (group(x=IMAGE), "x must have 5 dimensions [B, C_in, |P|, H, W], got shape (2, 3, 8, 8)"),
    (group(x=X[:, :, :3]), "x must have |P| = 4 elements of C4 in [B, C_in, |P|, H, W], got shape (2, 3, 3, 8, 8)"),
    (group(x=X[:, :2]), "x must have C_in = 3 fields (3 of weight x groups = 1), got 2"),
    (group(x=X[..., :2]), "x is too small: W = 2 with padding 0 gives 2, and the kernel (k = 3, dilation 1) needs at least 3"),
    (group(x=X.to("meta")), "x must be on weight's device cpu, got meta"),
    (group(weight=LIFT), "weight must have 5 dimensions [C_out, C_in, |P|, k, k], got shape (5, 3, 3, 3)"),
    (group(weight=WEIGHT[:, :, :2]), "weight must have |P| = 4 relative elements of C4"),
    (group(weight=WEIGHT[..., :2]), "weight must have a square kernel k x k"),
    (group(weight=WEIGHT[..., :0, :0]), "weight must have a square kernel k x k"),
    (group(x=X[:, :0], weight=WEIGHT[:, :0]), "weight must have at least one bank and field in [C_out, C_in, |P|, k, k]"),
    (group(weight=WEIGHT[:0]), "weight must have at least one bank and field"),
    (relaxed(weight=BANKS[:0], relaxed_weight=RELAXED[:0]), "weight must have at least one bank and field in [L, C_out,"),
    (group(bias=torch.ones(20)), "bias must have shape [C_out] = [5], one number a field, got [20]"),
    (group(bias=torch.ones(5, 1)), "bias must have 1 dimensions [C_out], got shape (5, 1)"),
    (group(group="C8"), "unknown group 'C8'; expected one of C1, C2, C4, D1, D2, D4, p4, p4m"),
    (group(group="D4"), "weight must have |P| = 8 relative elements of D4"),
    (group(stride=0), "stride must be at least 1, got 0"),
    (group(stride=(1, 2)), "stride must be the same for rows and columns, because C4 exchanges them, got (1, 2)"),
    (group(stride=(1, 1, 1)), "stride must be an int or a pair of ints, got (1, 1, 1)"),
    (group(padding=-1), "padding must be at least 0, got -1"),
    (group(padding=2**31), "padding must be below 2^31, got 2147483648"),
    (group(dilation=0), "dilation must be at least 1, got 0"),
    (group(groups=2), "groups must divide C_out = 5, got 2"),
    (group(groups=0), "groups must be at least 1, got 0"),
    (group(groups=5), "x must have C_in = 15 fields (3 of weight x groups = 5), got 3"),
    (group(algorithm="fast"), "algorithm must be one of 'auto', 'reference', 'dense', 'fused', 'irrep', 'triton_fused', 'triton_irrep', got 'fast'"),
    (group(activation="gelu"), "activation must be None or 'relu', got 'gelu'"),
    (relaxed(weight=WEIGHT), "weight must have 6 dimensions [L, C_out, C_in, |P|, k, k], got shape (5, 3, 4, 3, 3)"),
    (relaxed(relaxed_weight=RELAXED[:1]), "relaxed_weight must have shape [L, |P|] = [2, 4], got [1, 4]"),
    (relaxed(relaxed_weight=RELAXED[0]), "relaxed_weight must have 2 dimensions [L, |P|], got shape (4,)"),
    (relaxed(relax_on="both"), "relax_on must be 'input' or 'output', got 'both'"),
    (
        lambda: relaxed_lifting_conv2d(IMAGE, torch.randn(2, 5, 3, 3, 3), RELAXED, group="C4", relax_on="input"),
        "relax_on='input' needs a group axis on the input, and an image has none",
    ),
    (lambda: lifting_conv2d(X, LIFT, group="C4"), "x must have 4 dimensions [B, C_in, H, W], got shape (2, 3, 4, 8, 8)"),
    (lambda: expand_filter(WEIGHT[0, 0], group="C4"), "weight must have 4 dimensions [C_out, C_in, k, k]"),
    (lambda: expand_filter(BANKS, RELAXED[:1], group="C4"), "relaxed_weight must have shape [L, |P|] = [2, 4]"),
    (lambda: explain(X, WEIGHT, group="C4", algorithm="fast"), "algorithm must be one of"),
]
TYPES = [
    (group(x=X.numpy()), "x must be a tensor [B, C_in, |P|, H, W], got ndarray"),
    (group(x=X.double()), "x must have weight's dtype torch.float32, got torch.float64"),
    (group(x=X.int()), "x must have a real floating-point dtype, got torch.int32"),
    (group(weight=WEIGHT.to(torch.complex64)), "weight must have a real floating-point dtype, got torch.complex64"),
    (group(x=X.to(torch.float8_e5m2)), "x must have a floating-point dtype of at least 16 bits, got torch.float8_e5m2"),
    (group(x=X.to_sparse()), "x must be a dense tensor [B, C_in, |P|, H, W], got layout torch.sparse_coo"),
    (group(x=torch.nested.nested_tensor([*X])), "x must be a dense tensor [B, C_in, |P|, H, W], got a nested one"),
    (group(weight=None), "weight must be a tensor [C_out, C_in, |P|, k, k], got NoneType"),
    (group(bias=[0.0] * 5), "bias must be a tensor [C_out], got list"),
    (group(bias=torch.ones(5).half()), "bias must have weight's dtype torch.float32, got torch.float16"),
    (group(group=4), "group must be a PointGroup or its name, got int"),
    (group(stride=1.0), "stride must be an int or a pair of ints, got 1.0"),
    (group(padding="same"), "padding must be an int or a pair of ints, got 'same'"),
    (group(groups=True), "groups must be an int, got bool"),
    (relaxed(relaxed_weight=RELAXED.half()), "relaxed_weight must have weight's dtype torch.float32, got torch.float16"),
    (relaxed(relaxed_weight=None), "relaxed_weight must be a tensor [L, |P|], got NoneType"),
    (lambda: expand_filter([1.0], group="C4"), "weight must be a tensor, got list"),
]


@pytest.mark.parametrize("call, message", VALUES, ids=range(len(VALUES)))
def test_bad_values(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)


@pytest.mark.parametrize("call, message", TYPES, ids=range(len(TYPES)))
def test_bad_types(call, message):
    with pytest.raises(TypeError) as error:
        call()
    assert message in str(error.value)


def test_dense_says_what_it_supports():
    meta = dict(x=X.to("meta"), weight=WEIGHT.to("meta"))
    with pytest.raises(ValueError, match="algorithm='dense' does not support this call: it supports tensors on the CPU or a GPU, got meta"):
        group(**meta, algorithm="dense")()
    assert group(**meta)().shape == (2, 5, 4, 6, 6)  # auto never raises for that reason


def test_explain():
    x, weight = torch.randn(2, 16, 4, 16, 16), torch.randn(16, 16, 4, 3, 3)
    said = explain(x, weight, torch.randn(16), group="C4", padding=1)
    assert said.algorithm == "irrep" and set(said.rejected) == {"reference", "dense", "fused"} and "auto takes 'irrep'" in str(said)
    four = torch.randn(4, *BANKS.shape[1:]), torch.ones(4, 4)  # on the input each bank has butterflies of its own
    assert explain(X, BANKS, RELAXED, group="p4", relax_on="input").algorithm == "irrep"
    assert explain(X, *four, group="p4", relax_on="input").algorithm == "dense"
    narrow = torch.randn(2, 6, 4, 28, 28), torch.randn(3, 6, 6, 4, 3, 3), torch.ones(3, 4)  # 24 planes, PyTorch's takes as 32
    assert explain(*narrow, group="C4", relax_on="input", padding=1).algorithm == "irrep"
    # Two banks of D4 need 24/64 of dense's multiplications, and with gradients to come nearly twice as many; eight do not pay.
    wide, banks = torch.randn(2, 16, 8, 28, 28), torch.randn(8, 16, 16, 8, 3, 3)
    taken = [explain(wide, banks[:n], torch.ones(n, 8), group="D4", padding=1).algorithm for n in (2, 8)]
    assert taken == ["irrep", "dense"]
    assert explain(wide, banks[:3], torch.ones(3, 8), group="D4", padding=1).algorithm == "irrep"
    assert explain(wide, banks[:3].requires_grad_(), torch.ones(3, 8), group="D4", padding=1).algorithm == "dense"
    assert explain(IMAGE, LIFT, group="D4").algorithm == "irrep"
    assert explain(IMAGE[:, :1], LIFT[:1, :1], group="D4").algorithm == "irrep"
    pixels = IMAGE.to(memory_format=torch.channels_last)  # whose way into planes costs more than few fields save
    assert explain(pixels, LIFT, group="D4").algorithm == "dense"
    assert explain(X[:, :, :1], WEIGHT[:, :, :1], group="C1").algorithm == "dense"
    assert "16-bit" in explain(X.bfloat16(), WEIGHT.bfloat16(), group="C4").rejected["irrep"]
    with torch.autocast("cpu"):
        assert explain(x, weight, group="C4").algorithm == "dense"
    assert explain(x[..., :3, :3], weight, group="C4").algorithm == "irrep"  # one pixel, but other images' beside it
    meta = explain(X.to("meta"), WEIGHT.to("meta"), group="C4")
    assert meta.algorithm == "reference" and all("got meta" in meta.rejected[name] for name in ("dense", "fused", "irrep"))


def test_fused_takes_the_compiled_kernels_where_they_are(monkeypatch):
    weight = WEIGHT.to("meta")
    assert "got meta" in algorithms.support("fused", weight).why_not
    monkeypatch.setattr(ops, "is_compiled", lambda name, device: name == "fused_fprop")
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert algorithms.support("fused", weight.to(dtype)) == algorithms.Support("fused")
    assert "it supports float64" in algorithms.support("fused", weight.to(torch.int32)).why_not


def test_everything_public_is_documented():
    for name in functional.__all__:
        text = getattr(functional, name).__doc__
        assert all(word in text for word in ("Args:", "Returns:", "Raises:"))
