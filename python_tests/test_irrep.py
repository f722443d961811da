"""What the irrep algorithm promises beyond being right: equivariance to the bit, whatever the form, the memory format and
the number of threads."""

import cases
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gconv_ext
from gconv_ext import PointGroup, nn, ops, transform_feature_map, transform_image
from gconv_ext.autograd import ConvOptions, Dgrad

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def moved(x, group, g):
    return (transform_image if x.dim() == 4 else transform_feature_map)(x, group, g)


@st.composite
def convolutions(draw):
    """A group, a strict kind, and sizes that the stride maps onto themselves: (i + 2p − d (k − 1) − 1) mod s = 0."""
    group = PointGroup(draw(st.sampled_from(["C2", "C4", "D1", "D2", "D4"])))
    k, stride, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, 3))
    least = max(1, dilation * (k - 1) + 1 - 2 * padding)

    def size():
        chosen = draw(st.integers(least, least + 17))
        return chosen - (chosen + 2 * padding - dilation * (k - 1) - 1) % stride

    size = (size(), size())
    kind = draw(st.sampled_from(["lifting", "group"]))
    # Up to 30 output fields: both forms, and blocks of fields of unequal sizes.
    made = dict(in_fields=draw(st.integers(1, 3)), out_fields=draw(st.integers(1, 30)), k=k, size=size)
    return group, kind, made, dict(stride=stride, padding=padding, dilation=dilation), draw(st.sampled_from(DTYPES))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(convolutions())
def test_equivariance_to_the_bit(convolution):
    """conv(g·x) == g·conv(x) with torch.equal, fprop and dgrad, every element."""
    group, kind, made, planar, dtype = convolution
    if min(made["size"]) < 1:
        return
    torch.manual_seed(0)
    x, weight, bias = cases.make(kind, group, batch=1, dtype=dtype, **made)
    y = cases.call(kind, [x, weight, bias], group, algorithm="irrep", **planar)
    for g in range(group.order):
        assert torch.equal(cases.call(kind, [moved(x, group, g), weight, bias], group, algorithm="irrep", **planar), moved(y, group, g))
    if kind == "group":
        options = ConvOptions("irrep", group.name, "output", *((value,) * 2 for value in planar.values()), 1)
        dx = Dgrad.apply(y, weight, None, None, tuple(x.shape[-2:]), *options)
        for g in range(group.order):
            size = tuple(moved(x, group, g).shape[-2:])
            assert torch.equal(Dgrad.apply(moved(y, group, g), weight, None, None, size, *options), moved(dx, group, g))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_deep_network_is_exact(group, dtype):
    """Convolution, batch norm in eval mode, ReLU, spatial and coset pooling: an error of 0.0, not of 1e-7."""
    network = torch.nn.Sequential(
        nn.LiftingConv2d(1, 4, 3, group=group, algorithm="irrep"), nn.GroupBatchNorm2d(4), torch.nn.ReLU(),
        nn.GroupConv2d(4, 6, 3, group=group, padding=1, algorithm="irrep"), torch.nn.ReLU(), nn.SpatialMaxPool2d(2),
        nn.GroupConv2d(6, 5, 3, group=group, stride=2, padding=1, groups=1, algorithm="irrep"), torch.nn.ReLU(),
        nn.GroupConv2d(5, 30, 2, group=group, padding=1, algorithm="irrep"), nn.GroupPool(),
    )  # fmt: skip
    network[1].running_mean.normal_(), network[1].running_var.uniform_(0.5, 2)
    network = network.to(dtype).eval()
    error = gconv_ext.equivariance_error(network, torch.randn(2, 1, 16, 16).to(dtype), group)
    assert error.worst == 0 and error.eq14.max() == 0


# Narrow and wide maps, few and many fields: squares of every size are transposed, with and without a rest.
@pytest.mark.parametrize("in_fields, out_fields, size", [(3, 5, (9, 8)), (1, 3, (3, 3)), (17, 22, (8, 35)), (4, 16, (6, 5))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_memory_format_of_the_input_is_kept(kind, group, in_fields, out_fields, size, dtype):
    """Formats: rows of pixels; fields last; elements last, then fields.  Forward and backward, the same bits in all of them."""
    x, *rest = cases.make(kind, group, dtype=dtype, in_fields=in_fields, out_fields=out_fields, size=size)

    def formats(map):
        planes = map if map.dim() == 4 else map.flatten(1, 2)
        elements_last = planes.clone(memory_format=torch.channels_last)
        yield map
        yield elements_last if map.dim() == 4 else elements_last.unflatten(1, map.shape[1:3])
        if map.dim() == 5:
            yield map.clone(memory_format=torch.channels_last_3d)

    def gradients(map, index, algorithm):
        """(y, gradients), with dy in the format of that index."""
        arguments = [a.detach().requires_grad_() for a in (map, *rest)]
        y = cases.call(kind, arguments, group, padding=1, algorithm=algorithm)
        return y, torch.autograd.grad(y, arguments, list(formats(torch.ones_like(want)))[index])

    want = cases.call(kind, [x, *rest], group, padding=1, algorithm="irrep")
    strides = [map.stride() for map in formats(want)]
    results, references = [], []
    for index, map in enumerate(formats(x)):
        y, grads = gradients(map, index, "irrep")
        assert y.stride() == strides[index] or group.order == 1  # an axis of one element has any stride
        assert torch.equal(y, want)
        results.append(grads)
        references.append(gradients(map, index, "reference")[1])
    if dtype == torch.float64:  # dy in another format than x's is read as well
        results.append(gradients(x, index, "irrep")[1])
    for other in results[1:]:
        assert torch.equal(results[0][1], other[1])
    # PyTorch computes the gradient of an image, in 16 bits with errors that depend on processor and format.
    exact = [a.double().requires_grad_() for a in (x, *rest)]
    y = cases.call(kind, exact, group, padding=1, algorithm="reference")
    for number, gradient in enumerate(torch.autograd.grad(y, exact, torch.ones_like(y))):
        ours, theirs = (max(float((grads[number] - gradient).abs().max()) for grads in all) for all in (results, references))
        assert ours <= 2 * theirs + 1e-6 * float(gradient.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "size, stride, fields",
    [((4, 4), 1, 3), ((8, 8), 1, 20), ((7, 3), 1, 3), ((5, 9), 2, 3), ((6, 14), 1, 16), ((5, 28), 1, 6), ((3, 29), 1, 2)],
)
def test_small_images_computed_together(group, size, stride, fields, dtype):
    """Side by side, or one behind the other, as many as one thread has: the bits of each image alone, in both formats.
    Of wider ones, rows end within vectors, whose results lie in one run or in two."""
    x = torch.randn(11, 3, group.order, *size).to(dtype)
    weight = torch.randn(fields, 3, group.order, 3, 3).to(dtype)
    options = (group.name, "output", [stride] * 2, [1, 1], [1, 1], 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        y = ops.fprop("irrep", x, weight, None, None, None, *options, False)
        last = x.to(memory_format=torch.channels_last_3d)
        assert torch.equal(ops.fprop("irrep", last, weight, None, None, None, *options, False), y)
        dx = ops.dgrad("irrep", y, weight, None, None, *options[:2], list(size), *options[2:])
        for image in range(11):
            alone = slice(image, image + 1)
            assert torch.equal(ops.fprop("irrep", x[alone], weight, None, None, None, *options, False), y[alone])
            part = ops.dgrad("irrep", y[alone], weight, None, None, *options[:2], list(size), *options[2:])
            assert torch.equal(part, dx[alone])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("batch", [1, 3])
def test_results_do_not_depend_on_threads(kind, group, batch):
    """Three passes on one, two and three threads, more threads than images among them."""
    arguments = [a.requires_grad_() for a in cases.make(kind, group, batch=batch, in_fields=4, out_fields=9, size=(20, 17), dtype=torch.float32)]
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            y = cases.call(kind, arguments, group, padding=1, algorithm="irrep")
            results.append([y, *torch.autograd.grad(y, arguments, torch.ones_like(y))])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        # The gradient of relaxed weights ends in a sum of PyTorch's own, which may depend on threads.
        same = [torch.equal(a, b) for a, b in zip(results[0][:3], other[:3])]
        assert all(same), same


def op_arguments(kind, group, dtype=torch.float32):
    x, weight, bias = cases.make(kind, group, in_fields=4, groups=2, out_fields=6, size=(7, 8), dtype=dtype)
    return x, weight, bias, (group.name, "output", [1, 1], [1, 1], [1, 1], 2)


@pytest.mark.parametrize("kind", ["lifting", "group"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("banks", [0, 2])
def test_opcheck(kind, group, last, banks):
    x, weight, bias, options = op_arguments(kind, group)
    relaxed_weight = torch.randn(banks, group.order) if banks else None
    weight = torch.randn(banks, *weight.shape) if banks else weight
    if last:
        x = x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    y = ops.fprop("irrep", x, weight, relaxed_weight, bias, None, *options, False)
    torch.library.opcheck(torch.ops.gconv_ext.irrep_fprop, (x, weight, relaxed_weight, bias, None, *options, False))
    torch.library.opcheck(torch.ops.gconv_ext.irrep_transform_weight, (weight, relaxed_weight, *options[:2], 2))
    transformed = ops.transform_weight("irrep", weight, relaxed_weight, *options[:2], 2)
    assert torch.equal(ops.fprop("irrep", x, weight, relaxed_weight, bias, transformed, *options, False), y)
    torch.library.opcheck(torch.ops.gconv_ext.irrep_wgrad, (x, y, relaxed_weight, None, *options[:2], 3, *options[2:]))
    if kind == "group":
        arguments = (y, weight, relaxed_weight, None, *options[:2], [7, 8], *options[2:])
        torch.library.opcheck(torch.ops.gconv_ext.irrep_dgrad, arguments)


def test_relu_in_the_same_pass(group):
    x, weight, bias, options = op_arguments("group", group)
    plain = ops.fprop("irrep", x, weight, None, bias, None, *options, False)
    assert torch.equal(ops.fprop("irrep", x, weight, None, bias, None, *options, True), plain.relu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fields, width", [(3, 9), (17, 35)])
@pytest.mark.parametrize("stride", [1, 2])
def test_relu_masks_the_gradient_while_it_is_read(group, dtype, fields, width, stride):
    options = (group.name, "output", [stride] * 2, [1, 1], [1, 1], 1)
    x, weight = torch.randn(2, 2, group.order, 6, width, dtype=dtype), torch.randn(fields, 2, group.order, 3, 3, dtype=dtype)
    y = ops.fprop("irrep", x, weight, None, None, None, *options, True)
    y[0, 0, 0, 0, :3] = torch.tensor([0.0, -0.0, float("nan")])
    dy = torch.randn_like(y)
    last = [map.flatten(1, 2).clone(memory_format=torch.channels_last).unflatten(1, map.shape[1:3]) for map in (dy, y)]
    last3d = [map.clone(memory_format=torch.channels_last_3d) for map in (dy, y)]
    for gradient, activated in ((dy, y), last, last3d, (dy, last[1])):
        masked = torch.ops.aten.threshold_backward(gradient, activated, 0)
        got = ops.dgrad("irrep", gradient, weight, None, activated, *options[:2], [6, width], *options[2:])
        assert torch.equal(got, ops.dgrad("irrep", masked, weight, None, None, *options[:2], [6, width], *options[2:]))
        got = ops.wgrad("irrep", x, gradient, None, activated, *options[:2], 3, *options[2:])
        assert torch.equal(got, ops.wgrad("irrep", x, masked, None, None, *options[:2], 3, *options[2:]))


BAD_FPROP = [
    (ValueError, dict(x=torch.ones(2, 3)), "x must have 4 (image) or 5 (feature map) dimensions"),
    (ValueError, dict(x=torch.ones(1, 2, 3, 5, 5)), "x must have 4 elements of C4 in dimension 2"),
    (ValueError, dict(x=torch.ones(1, 3, 4, 5, 5)), "weight must have shape [3, 3, 4, 3, 3], got [3, 2, 4, 3, 3]"),
    (ValueError, dict(x=torch.ones(1, 2, 4, 2, 5)), "x is too small: size 2 with padding 0, for a kernel of 3 taps"),
    (TypeError, dict(x=torch.ones(1, 2, 4, 5, 5).int()), "x must be float64, float32, bfloat16 or float16, got Int"),
    (TypeError, dict(weight=torch.ones(3, 2, 4, 3, 3).double()), "weight must have x's dtype Float, got Double"),
    (ValueError, dict(weight=torch.ones(3)), "weight must have 4 (lifting) or 5 (group convolution) dimensions"),
    (ValueError, dict(bias=torch.ones(4)), "bias must have shape [3], got [4]"),
    (ValueError, dict(x=torch.ones(1, 0, 4, 5, 5), weight=torch.ones(3, 0, 4, 3, 3)), "must have at least one field, got 0 and 3"),
    (ValueError, dict(dilation=[2**62, 2**62]), "dilation must be below 2^31"),
    (ValueError, dict(stride=[2**40, 2**40]), "stride must be below 2^31"),
    (ValueError, dict(group="C3"), "group must be one of C1, C2, C4, D1, D2, D4, got 'C3'"),
    (ValueError, dict(stride=[0, 1]), "stride must be two numbers of at least 1, got [0, 1]"),
    (ValueError, dict(padding=[0]), "padding must be two numbers of at least 0, got [0]"),
    (ValueError, dict(dilation=[1, 0]), "dilation must be two numbers of at least 1"),
    (ValueError, dict(transformed_weight=torch.ones(7)), "transformed_weight must have shape [216], got [7]"),
    (TypeError, dict(transformed_weight=torch.ones(216).double()), "transformed_weight must be Float, got Double"),
    (ValueError, dict(relax_on="both"), "relax_on must be 'input' or 'output', got 'both'"),
    (ValueError, dict(weight=torch.ones(3, 2, 3, 3), relaxed_weight=torch.ones(2, 4)), "weight must have 5 (lifting) or 6 (group convolution) dimensions with a relaxed_weight"),
    (ValueError, dict(weight=torch.ones(2, 3, 2, 4, 3, 3), relaxed_weight=torch.ones(2, 3)), "relaxed_weight must have shape [2, 4], got [2, 3]"),
    (ValueError, dict(weight=torch.ones(3, 3, 2, 4, 3, 3), relaxed_weight=torch.ones(2, 4)), "weight must have shape [2, 3, 2, 4, 3, 3]"),
    (ValueError, dict(weight=torch.ones(0, 3, 2, 4, 3, 3), relaxed_weight=torch.ones(0, 4)), "relaxed_weight must be [L, |P|] with L at least 1"),
    (ValueError, dict(x=torch.ones(1, 2, 5, 5), weight=torch.ones(2, 3, 2, 3, 3), relaxed_weight=torch.ones(2, 4), relax_on="input"), "a lifting convolution has none"),
    (ValueError, dict(groups=2), "groups must divide the fields of x, 2, and of the result, 3, got 2"),
]


@pytest.mark.parametrize("error_type, changed, message", BAD_FPROP)
def test_the_op_checks_its_own_arguments(error_type, changed, message):
    good = dict(
        x=torch.ones(1, 2, 4, 5, 5), weight=torch.ones(3, 2, 4, 3, 3), relaxed_weight=None, bias=None, transformed_weight=None,
        group="C4", relax_on="output", stride=[1, 1], padding=[0, 0], dilation=[1, 1], groups=1, relu=False,
    )  # fmt: skip
    with pytest.raises(error_type) as error:
        torch.ops.gconv_ext.irrep_fprop(*(good | changed).values())
    assert message in str(error.value)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size, kernel_size, stride, padding", [(6, 1, 2, 0), (7, 2, 3, 1), (5, 1, (1, 2), 0), (1, 1, 3, 1)])
def test_the_gradient_is_zero_where_no_tap_reads(size, kernel_size, stride, padding, last):
    """Where the kernel is smaller than the stride; in the last case nothing is read at all."""
    group = "C2" if isinstance(stride, tuple) else "C4"
    x = torch.randn(3, 2, PointGroup(group).order, size, size, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last_3d if last else torch.contiguous_format).requires_grad_()
    weight = torch.randn(3, 2, x.shape[2], kernel_size, kernel_size, dtype=torch.float64)
    got, want = (
        torch.autograd.grad(gconv_ext.functional.group_conv2d(
            x, weight, group=group, stride=stride, padding=padding, algorithm=algorithm
        ).square().sum(), x)[0] for algorithm in ("irrep", "reference")
    )  # fmt: skip
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert (want == 0).any()


def test_a_stride_beyond_the_map(kind, group):
    """One output pixel, in memory that does not grow with the stride; forward and backward."""
    arguments = [a.requires_grad_() for a in cases.make(kind, group)]
    results = []
    for algorithm in ("irrep", "reference"):
        y = cases.call(kind, arguments, group, algorithm=algorithm, stride=100000, padding=1)
        assert y.shape[-2:] == (1, 1)
        results.append([y, *torch.autograd.grad(y.square().sum(), arguments)])
    for got, want in zip(*results):
        assert torch.allclose(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("call, message", [
    (lambda: ops.dgrad("irrep", torch.ones(1, 0, 4, 3, 3), torch.ones(0, 2, 4, 3, 3), None, None, "C4", "output", [5, 5], [1, 1], [0, 0], [1, 1], 1), "weight must have at least one bank, field and tap"),
    (lambda: ops.dgrad("irrep", torch.ones(1, 3, 4, 3, 3), torch.ones(3, 2, 4, 3, 3), None, None, "C4", "output", [6, 5], [1, 1], [0, 0], [1, 1], 1), "dy must have shape [1, 3, 4, 4, 3]"),
    (lambda: ops.dgrad("irrep", torch.ones(1, 3, 4, 3, 3), torch.ones(3, 2, 3, 3), None, None, "C4", "output", [5, 5], [1, 1], [0, 0], [1, 1], 1), "weight must be [C_out, C_in, |P|, k, k]"),
    (lambda: ops.dgrad("irrep", torch.ones(1, 3, 4, 3, 3), torch.ones(3, 2, 4, 3, 3), None, None, "D4", "output", [5, 5], [1, 1], [0, 0], [1, 1], 1), "weight must have 8 relative elements"),
    (lambda: ops.wgrad("irrep", torch.ones(1, 2, 4, 5, 5), torch.ones(1, 3, 4, 4, 3), None, None, "C4", "output", 3, [1, 1], [0, 0], [1, 1], 1), "dy must have shape [1, 3, 4, 3, 3]"),
    (lambda: ops.wgrad("irrep", torch.ones(1, 2, 4, 5, 5), torch.ones(1, 3, 4, 3, 3), None, torch.ones(1, 3, 4, 3), "C4", "output", 3, [1, 1], [0, 0], [1, 1], 1), "activated must have shape [1, 3, 4, 3, 3], got [1, 3, 4, 3]"),
    (lambda: ops.wgrad("irrep", torch.ones(1, 2, 4, 5, 5), torch.ones(1, 3, 4, 3, 3), None, None, "C4", "output", 0, [1, 1], [0, 0], [1, 1], 1), "the kernel must have 1 to 1024 taps a side, got 0"),
])  # fmt: skip
def test_the_gradient_ops_check_their_own_arguments(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)


@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep"])
@pytest.mark.parametrize("bias", [True, False])
def test_activation_with_its_derivatives(kind, group, bias, algorithm):
    """activation="relu" is relu of the convolution, to second order."""
    arguments = [a for a in cases.make(kind, group, batch=1, out_fields=4, size=(4, 5), bias=bias) if a is not None]
    results, scale = [], None
    for activation in (None, "relu"):
        inputs = [a.clone().requires_grad_() for a in arguments]
        y = cases.call(kind, inputs, group, algorithm=algorithm if activation else "reference", activation=activation)
        y = y if activation else y.relu()
        # A gradient of its own, also where y = 0, so that one which ReLU should have stopped shows in each derivative.
        scale = torch.randn_like(y) if scale is None else scale
        inputs.append(scale.clone().requires_grad_())
        first = torch.autograd.grad(((y + 1).pow(3) * inputs[-1]).sum(), inputs[:-1], create_graph=True)
        second = torch.autograd.grad(sum(grad.pow(2).sum() for grad in first), inputs)
        results.append([y, *first, *second])
    assert (results[0][0] == 0).any() and (results[0][0] > 0).any()
    for want, got in zip(*results):
        assert torch.allclose(got, want, rtol=1e-9, atol=1e-9 * want.abs().max().item())
