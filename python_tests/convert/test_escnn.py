"""Networks of escnn and e2cnn: their own outputs are the reference."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from peers import PEERS

import gconv_ext
from gconv_ext import nn as gnn

# e2cnn's numerical bases of the dihedral groups take it no time, escnn's some seconds each.
GROUPS = {
    "escnn": ["C1", "C2", "C4", "D1", "D4", "C6", "C8"],
    "e2cnn": ["C1", "C2", "C4", "D1", "D2", "D4", "C6", "C8", "C16", "D3", "D8"],
}
OURS = {"C6": "C2", "C8": "C4", "C16": "C4", "D3": "D1", "D8": "D4"}


@pytest.fixture(scope="module", params=PEERS)
def peer(request):
    return PEERS[request.param]()


@pytest.fixture(scope="module", params=[(name, group) for name in PEERS for group in GROUPS[name]], ids="-".join)
def peer_and_group(request):
    name, group = request.param
    return PEERS[name](), group


def relative(got, want):
    return float((got - want).detach().abs().max() / want.detach().abs().max())


def randomised(module):
    """Biases, scales and statistics that are not their initial values."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith(("bias", "running_mean")):
            tensor.data.normal_()
        elif "batch_norm" in name and name.endswith(("weight", "running_var")):
            tensor.data.uniform_(0.5, 1.5)
    return module


def converted(module):
    """The converted module, of which every part was converted."""
    fast, report = gconv_ext.convert(module)
    assert not report.kept, str(report)
    return fast


OPTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 5, "stride": 2, "bias": False},
    {"kernel_size": 3, "dilation": 2, "padding": 2, "padding_mode": "circular"},
    {"kernel_size": 3, "groups": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("lifting", [True, False], ids=["lifting", "group"])
def test_convolution(peer_and_group, lifting, options):
    """In float64, to 1e-10: what is left is the asymmetry of the peer's filters, which the report bounds."""
    peer, group = peer_and_group
    space = peer.space(group)
    in_type = (peer.trivial if lifting else peer.regular)(space, 2)
    # A basis of its own: the peers share theirs between modules, and double() turns those into float64 too.
    conv = peer.nn.R2Conv(in_type, peer.regular(space, 4), **options, recompute=True)
    randomised(conv).double().eval()
    fast, report = gconv_ext.convert(conv)
    (row,) = report.rows
    assert row.converted and row.layer is fast.layer and row.layer.group.name == OURS.get(group, group)
    assert isinstance(row.layer, gnn.LiftingConv2d if lifting and group != "C1" else gnn.GroupConv2d)

    dense = gconv_ext.functional.expand_filter(row.layer.weight, group=row.layer.group)
    if fast.out_order is not None:
        dense = dense[fast.out_order]
    if fast.in_order is not None:
        dense = dense[:, fast.in_order[: dense.shape[1]].argsort()]
    asymmetry = conv.filter - dense
    assert asymmetry.abs().max() < 1e-6 * conv.filter.abs().max()

    x = torch.randn(2, in_type.size, 11, 11).double()
    padding = options.get("padding", 0)
    padded = F.pad(x, 4 * (padding,), mode="circular" if "padding_mode" in options else "constant")
    rest = {key: value for key, value in options.items() if key in ("stride", "dilation", "groups")}
    want = conv(peer.nn.GeometricTensor(x, in_type)).tensor
    got = fast(peer.nn.GeometricTensor(x, in_type))
    assert got.type == conv.out_type
    assert relative(got.tensor, want) < 1e-6
    assert relative(got.tensor + F.conv2d(padded, asymmetry, **rest), want) < 1e-10


def test_in_float32(peer_and_group):
    peer, group = peer_and_group
    space = peer.space(group)
    lift = peer.nn.R2Conv(peer.trivial(space, 1), peer.regular(space, 3), 5, padding=2)
    conv = peer.nn.R2Conv(lift.out_type, peer.regular(space, 2), 3)
    network = randomised(peer.nn.SequentialModule(lift, conv))
    x = peer.nn.GeometricTensor(torch.randn(2, 1, 9, 9), lift.in_type)
    assert relative(converted(network)(x).tensor, network(x).tensor) < 1e-5


def test_in_bfloat16(peer):
    space = peer.space("C4")
    conv = peer.nn.R2Conv(peer.regular(space, 2), peer.regular(space, 2), 3, recompute=True).bfloat16().eval()
    fast = converted(conv)
    assert fast.layer.weight.dtype == torch.bfloat16
    x = peer.nn.GeometricTensor(torch.randn(2, 8, 6, 6).bfloat16(), conv.in_type)
    assert relative(fast(x).tensor, conv(x).tensor) < 0.03


def test_a_mirror_about_another_axis(peer):
    """D4 has the same mirrors about each of its axes, D1 about a horizontal one another than here."""
    x = torch.randn(2, 2, 9, 9)
    for axis in (0.0, math.pi / 4):
        space = peer.space("D4", axis)
        # Not the bases that e2cnn keeps: it takes those of one axis for those of another.
        conv = peer.nn.R2Conv(peer.trivial(space, 2), peer.regular(space, 2), 3, recompute=True)
        row = gconv_ext.convert(conv)[1].rows[0]
        assert row.layer.group.name == "D4"
        x_ = peer.nn.GeometricTensor(x, conv.in_type)
        assert relative(converted(conv)(x_).tensor, conv(x_).tensor) < 1e-5
    space = peer.space("D1", 0.0)
    row = gconv_ext.convert(peer.nn.R2Conv(peer.trivial(space, 2), peer.regular(space, 2), 3))[1].rows[0]
    assert not row.converted and "no rotation or mirror that this package knows is in" in row.note


@pytest.mark.parametrize(
    "group, why", [("C-1", "is continuous"), ("C3", "no rotation or mirror that this package knows")]
)
def test_groups_that_share_nothing_with_ours(peer, group, why):
    space = peer.space(group)
    image = peer.trivial(space, 2)
    conv = peer.nn.R2Conv(image, image, 3)
    same, report = gconv_ext.convert(conv)
    x = peer.nn.GeometricTensor(torch.randn(1, 2, 5, 5), image)
    assert why in report.rows[0].note and torch.equal(same(x).tensor, conv(x).tensor)


def test_filters_that_are_not_symmetric_are_kept(peer):
    space = peer.space("C4")
    conv = peer.nn.R2Conv(peer.regular(space, 1), peer.regular(space, 1), 3)
    dense, bias = conv.expand_parameters()
    conv.expand_parameters = lambda: (dense + 0.1 * torch.randn_like(dense), bias)
    (row,) = gconv_ext.convert(conv)[1].rows
    assert not row.converted and "far from symmetric under C4" in row.note


def network(peer, group, fields=3):
    """Every module that converts, in one."""
    space, nn = peer.space(group), peer.nn
    image, maps = peer.trivial(space, 1), peer.regular(space, fields)
    return randomised(nn.SequentialModule(
        nn.R2Conv(image, maps, 5, padding=2, bias=False), nn.InnerBatchNorm(maps), nn.ReLU(maps, inplace=True),
        nn.PointwiseMaxPool(maps, 3, stride=2, padding=1), nn.R2Conv(maps, maps, 3, padding=1),
        nn.InnerBatchNorm(maps, eps=1e-3, momentum=0.2), nn.ReLU(maps), nn.PointwiseAvgPool(maps, 2),
        nn.R2Conv(maps, maps, 3, padding=1, bias=False), nn.InnerBatchNorm(maps, affine=False),
        nn.PointwiseAdaptiveAvgPool(maps, 1), nn.GroupPooling(maps),
    ))  # fmt: skip


@pytest.mark.parametrize("group", ["C4", "C8", "D4"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_network(peer, group, training):
    """The result, every gradient that both have, and the statistics that a training step leaves behind."""
    slow = network(peer, group).train(training)
    fast = converted(slow)
    assert fast.training == training and all(module.training == training for module in fast.modules())
    images = torch.randn(4, 1, 13, 13)
    results, gradients = [], []
    for model in (slow, fast):
        x = images.clone().requires_grad_()
        y = model(peer.nn.GeometricTensor(x, model.in_type)).tensor
        results.append(y)
        gradients.append(torch.autograd.grad(y.square().sum(), x)[0])
    assert results[1].shape == (4, 3, 1, 1)
    assert relative(results[1], results[0]) < 1e-4 and relative(gradients[1], gradients[0]) < 1e-4
    for name in ("1", "5", "9"):
        (theirs,) = (m for m in slow.get_submodule(name).modules() if isinstance(m, torch.nn.BatchNorm3d))
        for key, value in theirs.state_dict().items():
            assert torch.allclose(fast.get_submodule(name).layer.state_dict()[key], value, atol=1e-5), key


def test_a_batch_norm_applies_the_relu_behind_it(peer):
    """But not one that something else uses too, or that does not follow."""
    space, nn = peer.space("C4"), peer.nn
    maps = peer.regular(space, 2)
    shared, norm = nn.ReLU(maps), nn.InnerBatchNorm(maps)
    slow = randomised(torch.nn.Sequential(
        nn.SequentialModule(nn.InnerBatchNorm(maps), nn.ReLU(maps)), nn.InnerBatchNorm(maps), nn.ReLU(maps),
        nn.InnerBatchNorm(maps), shared, norm, nn.R2Conv(maps, maps, 3), norm, shared,
    )).eval()  # fmt: skip
    fast, report = gconv_ext.convert(slow)
    activations = {path: layer.activation for path, layer in fast.named_modules() if isinstance(layer, gnn.GroupBatchNorm2d)}
    assert activations == {"0.0.layer": "relu", "1.layer": "relu", "3.layer": None, "5.layer": None}
    joined = {row.path for row in report.rows if row.note == "in the pass of the batch norm before it"}
    assert joined == {"0.1", "2"} and all(isinstance(fast.get_submodule(path).layer, torch.nn.Identity) for path in joined)
    x = nn.GeometricTensor(torch.randn(2, 8, 7, 7), maps)
    with torch.no_grad():
        assert relative(fast(x).tensor, slow(x).tensor) < 1e-5


def test_pooling(peer):
    space, nn = peer.space("C4"), peer.nn
    maps = peer.regular(space, 2)
    x = nn.GeometricTensor(torch.randn(2, 8, 12, 12), maps)
    for pool in (
        nn.PointwiseMaxPool(maps, 2), nn.PointwiseMaxPool(maps, (3, 3), (2, 2), 1), nn.PointwiseAvgPool(maps, 3, 2, 1),
        nn.PointwiseAdaptiveMaxPool(maps, 1), nn.PointwiseAdaptiveAvgPool(maps, (1, 1)), nn.GroupPooling(maps),
        nn.PointwiseAvgPoolAntialiased(maps, 0.66, 2), nn.PointwiseAvgPoolAntialiased(maps, 0.9, 1, 0),
    ):  # fmt: skip
        got = converted(pool)(x)
        assert got.type == pool.out_type and relative(got.tensor, pool(x).tensor) < 1e-6
        double = nn.GeometricTensor(x.tensor.double(), maps)
        assert relative(converted(pool.double())(double).tensor, pool(double).tensor) < 1e-14
    for pool, why in (
        (nn.PointwiseMaxPool(maps, 2, ceil_mode=True), "ceil_mode"),
        (nn.PointwiseMaxPool(maps, 2, dilation=2), "dilation (2, 2)"),
        (nn.PointwiseAvgPool(maps, (2, 3)), "kernel_size differs between rows and columns: (2, 3)"),
        (nn.PointwiseAdaptiveAvgPool(maps, 2), "output_size (2, 2); this package pools to one pixel"),
        (nn.PointwiseAvgPoolAntialiased(maps, 0.66, (1, 2)), "stride differs between rows and columns: (1, 2)"),
        (nn.PointwiseAvgPoolAntialiased(maps, 0.66, 1, 3), "padding must be an int from 0 to kernel_size / 2 = 2, got 3"),
        (nn.PointwiseDropout(maps), "no layer that this package has"),
    ):
        same, report = gconv_ext.convert(pool.eval())
        assert report.rows[0].note == why and not report.converted
        assert torch.equal(same(x).tensor, pool(x).tensor)


class Block(torch.nn.Module):
    """A residual block as people write it, around escnn's or e2cnn's own modules."""

    def __init__(self, peer, in_type, out_type, stride):
        super().__init__()
        nn = peer.nn
        self.conv1 = nn.R2Conv(in_type, out_type, 3, padding=1, stride=stride, bias=False)
        self.norm1, self.relu = nn.InnerBatchNorm(out_type), nn.ReLU(out_type)
        self.conv2 = nn.R2Conv(out_type, out_type, 3, padding=1)
        self.shortcut = nn.R2Conv(in_type, out_type, 1, stride=stride) if stride > 1 else None
        self.in_type, self.out_type = in_type, out_type

    def forward(self, x):
        assert x.type == self.in_type
        y = self.conv2(self.relu(self.norm1(self.conv1(x))))
        return y + (self.shortcut(x) if self.shortcut else x)


class ResNet(torch.nn.Module):
    """Parts that convert, parts of the peer that do not (irreducible fields, dropout), and PyTorch's own."""

    def __init__(self, peer, group):
        super().__init__()
        space, nn = peer.space(group), peer.nn
        maps, wide = peer.regular(space, 2), peer.regular(space, 4)
        self.geometric_tensor, self.input_type = nn.GeometricTensor, peer.trivial(space, 3)
        self.lift = nn.R2Conv(self.input_type, maps, 3, padding=1)
        frequency = space.irrep(*((1, 1) if group[0] == "D" else (1,)))
        steered = nn.FieldType(space, 2 * [frequency] + 2 * [space.trivial_repr])
        self.to_irreps = nn.R2Conv(maps, steered, 3, padding=1)
        self.from_irreps = nn.R2Conv(steered, maps, 3, padding=1)
        self.blocks = torch.nn.Sequential(
            Block(peer, maps, maps, 1), nn.PointwiseDropout(maps, p=0.0), Block(peer, maps, wide, 2)
        )
        self.pool = nn.GroupPooling(wide)
        self.head = torch.nn.Linear(4, 10)

    def forward(self, image):
        x = self.lift(self.geometric_tensor(image, self.input_type))
        x = self.blocks(self.from_irreps(self.to_irreps(x)))
        return self.head(self.pool(x).tensor.mean((2, 3)))


@pytest.mark.parametrize("group", ["C4", "C8", "D4"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_what_cannot_be_converted_is_kept_and_still_works(peer, group, training):
    slow = randomised(ResNet(peer, group)).train(training)
    before = {name: value.clone() for name, value in slow.state_dict().items()}
    fast, report = gconv_ext.convert(slow)
    image = torch.randn(4, 3, 12, 12)
    assert relative(fast(image), slow(image)) < 1e-4

    kept = {row.path: row.note for row in report.kept}
    assert list(kept) == ["to_irreps", "from_irreps", "blocks.1", "head"]
    assert kept["to_irreps"].startswith("its output fields are not all regular: ")
    assert kept["from_irreps"].startswith("its input fields are neither all trivial nor all regular: ")
    assert kept["blocks.1"] == "no layer that this package has" and kept["head"] == "a layer of PyTorch"
    assert [row.path for row in report.converted] == [
        "lift", "blocks.0.conv1", "blocks.0.norm1", "blocks.0.relu", "blocks.0.conv2", "blocks.2.conv1",
        "blocks.2.norm1", "blocks.2.relu", "blocks.2.conv2", "blocks.2.shortcut", "pool",
    ]  # fmt: skip
    assert type(fast.blocks[0]) is Block and type(fast.head) is torch.nn.Linear
    assert fast.head.weight is not slow.head.weight and fast.to_irreps.weights is not slow.to_irreps.weights

    # The given network is as it was, but for the statistics of its own call.
    assert type(slow.lift) is peer.nn.R2Conv
    for name, value in slow.state_dict().items():
        assert torch.equal(value, before[name]) or "running" in name or "num_batches" in name, name


def test_a_converted_network_trains(peer):
    """A few steps lower the loss, and every parameter takes part."""
    fast = gconv_ext.convert(ResNet(peer, "C4"))[0]
    image, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    optimizer = torch.optim.Adam(fast.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(fast(image), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in fast.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_after_training_there(peer):
    """What the optimiser has done to the coefficients is carried over, and the decisions are the same."""
    slow = ResNet(peer, "C4")
    image, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 10
    optimizer = torch.optim.Adam(slow.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(slow(image), labels).backward()
        optimizer.step()
    slow.eval()
    fast = gconv_ext.convert(slow)[0]
    assert relative(fast(image), slow(image)) < 1e-4
    assert torch.equal(fast(image).argmax(1), slow(image).argmax(1))


def test_copies_and_state_dicts(peer):
    fast = converted(network(peer, "C8").eval())
    x = torch.randn(2, 1, 13, 13)

    def result(model):
        return model(peer.nn.GeometricTensor(x, model.in_type)).tensor

    assert torch.equal(result(copy.deepcopy(fast)), result(fast))
    other = converted(network(peer, "C8").eval())
    assert not torch.equal(result(other), result(fast))
    other.load_state_dict(fast.state_dict())
    assert torch.equal(result(other), result(fast))


def test_frozen_parameters_stay_frozen_and_shared_modules_shared(peer):
    space, nn = peer.space("C4"), peer.nn
    maps = peer.regular(space, 2)
    conv, norm = nn.R2Conv(maps, maps, 3, padding=1), nn.InnerBatchNorm(maps)
    conv.weights.requires_grad_(False)
    for parameter in norm.parameters():
        parameter.requires_grad_(False)
    fast = converted(torch.nn.Sequential(conv, norm, conv))
    assert fast[0] is fast[2]
    assert not fast[0].layer.weight.requires_grad and fast[0].layer.bias.requires_grad
    assert not fast[1].layer.weight.requires_grad and not fast[1].layer.bias.requires_grad


def test_subclasses_are_kept(peer):
    class Doubled(peer.nn.R2Conv):
        def forward(self, x):
            return 2.0 * super().forward(x)

    space = peer.space("C4")
    conv = Doubled(peer.trivial(space, 1), peer.regular(space, 1), 3)
    same, report = gconv_ext.convert(conv)
    x = peer.nn.GeometricTensor(torch.randn(1, 1, 5, 5), conv.in_type)
    assert not report.converted and torch.equal(same(x).tensor, conv(x).tensor)


def test_fields_of_several_sizes(peer):
    space, nn = peer.space("C4"), peer.nn
    mixed = nn.FieldType(space, [space.regular_repr, space.trivial_repr])
    x = nn.GeometricTensor(torch.randn(2, 5, 6, 6), mixed)
    for module in (nn.InnerBatchNorm(mixed), nn.GroupPooling(mixed)):
        same, report = gconv_ext.convert(module)
        assert report.rows[0].note.startswith("its fields have several sizes: ") and len(report.rows) == 1
        assert torch.equal(same(x).tensor, module(x).tensor)
    relu = nn.ReLU(mixed)
    assert torch.equal(converted(relu)(x).tensor, relu(x).tensor)


def test_the_wrong_field_type(peer):
    space = peer.space("C4")
    fast = converted(peer.nn.ReLU(peer.regular(space, 1)))
    with pytest.raises(ValueError, match="x must have the field type .*regular.*, got .*irrep_0"):
        fast(peer.nn.GeometricTensor(torch.ones(1, 4, 5, 5), peer.trivial(space, 4)))


def test_report(peer):
    text = str(gconv_ext.convert(ResNet(peer, "C4"))[1])
    lines = text.splitlines()
    assert lines[0].split() == ["module", "was", "now"]
    assert lines[1].startswith("lift ") and " R2Conv " in lines[1] and "symmetric under C4 to" in lines[1]
    assert " LiftingConv2d(3, 2, kernel_size=3, group=C4, padding=1) " in lines[1]
    assert lines[-2].split() == ["head", "Linear", "kept", "a", "layer", "of", "PyTorch"]
    assert lines[-1] == "11 of 15 modules converted"


@pytest.mark.parametrize("model", [None, "model", torch.ones(1), {}], ids=str)
def test_what_is_no_network(model):
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got "):
        gconv_ext.convert(model)


def test_a_network_without_anything_to_convert():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), gnn.GroupPool())
    same, report = gconv_ext.convert(model)
    assert [row.note for row in report.rows] == ["a layer of PyTorch", "a layer of PyTorch", "a layer of this package"]
    assert not report.converted and same is not model
