import cases
import pytest
import torch

from gconv_ext import ops


def bank_of(kind, group):
    _, weight, *relaxed, _ = cases.make(kind, group, dtype=torch.float32)
    return weight, relaxed[0] if relaxed else None


def test_opcheck(kind, group):
    weight, relaxed_weight = bank_of(kind, group)
    options = (group.name, cases.relax_on(kind))
    torch.library.opcheck(torch.ops.gconv_ext.expand_filter, (weight, relaxed_weight, *options))
    grad = torch.randn_like(ops.expand_filter(weight, relaxed_weight, *options))
    for mask in ([True, relaxed_weight is not None], [False, relaxed_weight is not None], [True, False]):
        torch.library.opcheck(
            torch.ops.gconv_ext.expand_filter_backward, (grad, weight, relaxed_weight, *options, mask)
        )


def test_outputs_are_written_in_full(kind, group):
    """Two runs on memory that held something else."""
    weight, relaxed_weight = bank_of(kind, group)
    options = (group.name, cases.relax_on(kind))
    first = ops.expand_filter(weight, relaxed_weight, *options)
    expected, shape = first.clone(), first.shape
    first.fill_(torch.nan)
    del first
    assert torch.equal(ops.expand_filter(weight, relaxed_weight, *options), expected)
    assert shape == expected.shape


BAD_CALLS = {
    "group": (ValueError, dict(group="C3"), "group must be one of C1, C2, C4, D1, D2, D4, got 'C3'"),
    "relax_on": (ValueError, dict(relax_on="both"), "relax_on must be 'input' or 'output', got 'both'"),
    "dimensions": (ValueError, dict(weight=torch.ones(3, 3)), "weight must have 4 (lifting) or 5"),
    "taps": (ValueError, dict(weight=torch.ones(1, 1, 4, 3, 2)), "weight must have k x k taps"),
    "order": (ValueError, dict(weight=torch.ones(1, 1, 3, 3, 3)), "weight must have 4 relative elements"),
    "no bank": (
        ValueError,
        dict(weight=torch.ones(0, 1, 1, 4, 3, 3), relaxed_weight=torch.ones(0, 4)),
        "weight must have at least one bank, field and tap, got shape [0, 1, 1, 4, 3, 3]",
    ),
    "dtype": (TypeError, dict(weight=torch.ones(1, 1, 4, 3, 3, dtype=torch.int32)), "weight must be float64"),
    "relaxed shape": (
        ValueError,
        dict(weight=torch.ones(2, 1, 1, 4, 3, 3), relaxed_weight=torch.ones(3, 4)),
        "relaxed_weight must have shape [2, 4], got [3, 4]",
    ),
    "relaxed dtype": (
        TypeError,
        dict(weight=torch.ones(2, 1, 1, 4, 3, 3), relaxed_weight=torch.ones(2, 4).double()),
        "relaxed_weight must have weight's dtype Float, got Double",
    ),
    "lifting input": (
        ValueError,
        dict(weight=torch.ones(2, 1, 1, 3, 3), relaxed_weight=torch.ones(2, 4), relax_on="input"),
        "relax_on='input' needs a group axis",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_the_ops_check_their_own_arguments(name):
    """The C++ checks, behind the ones in Python."""
    error_type, changed, message = BAD_CALLS[name]
    good = dict(weight=torch.ones(1, 1, 4, 3, 3), relaxed_weight=None, group="C4", relax_on="output")
    arguments = good | changed
    with pytest.raises(error_type) as error:
        torch.ops.gconv_ext.expand_filter(*arguments.values())
    assert message in str(error.value)
    with pytest.raises(error_type) as error:
        torch.ops.gconv_ext.expand_filter_backward(torch.ones(4, 4, 3, 3), *arguments.values(), [True, False])
    assert message in str(error.value)


@pytest.mark.parametrize(
    "grad_filter, mask, message",
    [
        (torch.ones(4, 4, 3, 2), [True, False], "grad_filter must have shape [4, 4, 3, 3], got [4, 4, 3, 2]"),
        (torch.ones(4, 4, 3, 3), [True, True], "output_mask[1] asks for the gradient of relaxed_weight"),
    ],
)
def test_backward_checks(grad_filter, mask, message):
    with pytest.raises(ValueError) as error:
        torch.ops.gconv_ext.expand_filter_backward(grad_filter, torch.ones(1, 1, 4, 3, 3), None, "C4", "output", mask)
    assert message in str(error.value)


def test_the_fused_ops_have_fakes_on_every_device(kind, group):
    """Their kernels are CUDA's alone."""
    x, weight, *relaxed, bias = (tensor.to("meta") for tensor in cases.make(kind, group))
    relaxed_weight, names = relaxed[0] if relaxed else None, (group.name, cases.relax_on(kind))
    planar = ([1, 2], [1, 1], [1, 1], 1)
    y = ops.fprop("fused", x, weight, relaxed_weight, bias, None, *names, *planar, False)
    assert y.shape == (2, 3, group.order, 6, 4)
    assert ops.dgrad("fused", y, weight, relaxed_weight, None, *names, x.shape[-2:], *planar).shape == x.shape
    assert ops.wgrad("fused", x, y, relaxed_weight, None, *names, 3, *planar).shape == weight.shape
    assert not ops.is_compiled("fused_fprop", torch.device("cpu"))


@pytest.mark.skipif(ops.is_compiled("irrep_fprop", torch.device("cuda")), reason="the CUDA kernels were built")
def test_without_wgmma_needs_the_cuda_kernels():
    with pytest.raises(RuntimeError, match="wgmma belongs to the CUDA kernels, which are missing: not built: "), ops.without_wgmma():
        pass


def test_the_short_way_to_irrep_fprop_is_the_op(group):
    """What it computes, what a profiler sees of it, and what it refuses."""
    x, weight, bias = cases.make("group", group, dtype=torch.float32, size=(6, 5), groups=2, in_fields=4, out_fields=6)
    transformed = ops.transform_weight("irrep", weight, None, group.name, "output", 2)
    arguments = [x, weight, None, bias, transformed, group.name, "output", (2, 2), (1, 1), (1, 1), 2, True]
    want = ops.fprop("irrep", *arguments)
    with torch.profiler.profile() as profile:
        assert torch.equal(ops.irrep_fprop_of_plain(*arguments), want)
    assert "gconv_ext::irrep_fprop" in [event.key for event in profile.key_averages()]
    wrong = {0: None, 1: "weight", 3: 1.0, 5: None, 6: 1, 7: 2, 8: (1, 1, 1), 9: [1, 1], 10: 1.0}
    for position, argument in wrong.items():
        with pytest.raises(TypeError, match="expected a"):
            ops.irrep_fprop_of_plain(*arguments[:position], argument, *arguments[position + 1 :])
    with pytest.raises(ValueError, match="groups"):
        ops.irrep_fprop_of_plain(*arguments[:10], 3, True)
