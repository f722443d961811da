import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from gconv_ext import create_model, equivariance_error, exactness
from gconv_ext import nn as gnn


def only(layer, size):
    """The row of a network of one layer."""
    (row,) = exactness(nn.Sequential(layer), size, channels=(3, 4) if "Spatial" in type(layer).__name__ else None).rows
    return row


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("layer, size, output, remainder", [
    (gnn.LiftingConv2d(3, 2, 3, stride=2), 33, 16, 0),  # section 4.1: (33 − 3) mod 2 = 0
    (gnn.LiftingConv2d(3, 2, 3, stride=2), 32, 15, 1),
    (gnn.LiftingConv2d(3, 2, 3, stride=2, padding=1), 33, 17, 0),
    (gnn.LiftingConv2d(3, 2, 3, stride=2, padding=1, padding_mode="reflect"), 32, 16, 1),
    (gnn.LiftingConv2d(3, 2, 3, padding=1), 32, 32, 0),  # stride 1 always holds
    (gnn.GroupConv2d(3, 2, 4, group="D4", stride=3, padding=1), 11, 4, 0),  # 11 + 2 − 4 = 9
    (gnn.GroupConv2d(3, 2, 3, stride=4, dilation=3, padding=2), 13, 3, 2),  # 13 + 4 − 3·2 − 1 = 10
    (gnn.RelaxedGroupConv2d(3, 2, 3, stride=2), 6, 2, 1),
    (gnn.SpatialMaxPool2d(2), 5, 2, 1),  # Fig. 1
    (gnn.SpatialAvgPool2d(3, 2, 1), 9, 5, 0),
    (gnn.SpatialGlobalPool2d("mean"), 8, 1, 0),
    (nn.Conv2d(3, 2, 3, stride=2, padding=1), 32, 16, 1),
    (nn.Conv2d(3, 2, 3, padding="same", dilation=2), 8, 8, 0),
    (nn.Conv2d(3, 2, 4, padding="same"), 8, 8, -1),  # one pixel of padding before and two after
    (nn.Conv2d(3, 2, 4, padding="valid"), 8, 5, 0),
    (nn.MaxPool2d(3, 2), 8, 3, 1),
    (nn.MaxPool2d(3, 2, ceil_mode=True), 8, 4, -1),  # of the windows 0-2, 2-4, 4-6, 6-8 the last reaches out
    (nn.MaxPool2d(3, 2, ceil_mode=True), 9, 4, 0),
    (nn.MaxPool2d(2, 3, dilation=2), 9, 3, 0),  # 9 − 2 − 1 = 6
    (nn.AvgPool2d(2), 7, 3, 1),
    (nn.LPPool2d(2, 2), 7, 3, 1),
    (nn.AdaptiveAvgPool2d(4), 7, 4, 0),
    (nn.AdaptiveMaxPool2d(1), 6, 1, 0),
    (nn.Upsample(scale_factor=3), 4, 12, 0),
    (nn.Upsample(scale_factor=2, mode="bilinear"), 5, 10, 0),
    (nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1), 5, 9, 0),
    (nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), 5, 10, 1),
    (nn.ZeroPad2d(2), 5, 9, 0),
    (nn.ReflectionPad2d((1, 2, 1, 2)), 5, 8, -1),
])  # fmt: skip
def test_one_layer(layer, size, output, remainder):
    """Sizes and remainders worked out by hand; and the verdict is what happens to a mirrored or turned map."""
    row = only(layer, size)
    assert row.input_size == (size, size) and row.output_size == (output, output)
    assert row.remainder == (remainder, remainder) and row.holds is (remainder == 0)
    assert row.name == "0" and row.layer.split()[0] == type(layer).__name__
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        layer.weight.data.fill_(1)  # a filter without direction
    group, fields = getattr(layer, "group", "C4"), getattr(layer, "in_channels", 3)
    takes_an_image = isinstance(layer, gnn.LiftingConv2d) or type(layer).__module__.startswith("torch.")
    elements = () if takes_an_image else (layer.group.order if hasattr(layer, "group") else 4,)
    x = torch.randn(2, fields, *elements, size, size, dtype=torch.float64)
    worst = equivariance_error(layer.double(), x, group).worst
    assert worst < 1e-12 if row.holds else worst > 1e-3


def test_unequal_rows_and_columns():
    row = only(nn.Conv2d(1, 1, 3, stride=(1, 2), padding=1), (6, 7))
    assert row.remainder == (0, 0) and row.output_size == (6, 4) and row.holds is False  # a quarter turn exchanges them
    assert row.layer == "Conv2d k=3 s=(1, 2) p=1"
    row = only(gnn.LiftingConv2d(1, 1, 3, group="D2", stride=(1, 2), padding=1), (6, 7))
    assert row.remainder == (0, 0) and row.holds is True
    assert only(gnn.LiftingConv2d(1, 1, 2, group="D1", stride=2), (7, 6)).holds is True  # the mirror leaves rows alone
    assert only(gnn.LiftingConv2d(1, 1, 2, group="D1", stride=2), (6, 7)).holds is False
    assert only(gnn.LiftingConv2d(1, 1, 2, group="C2", stride=2), (7, 6)).holds is False
    assert only(nn.AdaptiveAvgPool2d((1, 2)), 6).holds is False


def test_every_layer_of_a_network_in_its_order():
    report = exactness(create_model("p4_resnet18", width=1), 33)
    assert report.exact and report.nearest_sizes == (33,)
    assert report.group.name == "C4" and report.input_size == (33, 33)
    strided = [row for row in report.rows if row.stride == (2, 2)]
    assert [row.name for row in strided] == [
        f"stage{n}.0.{layer}" for n in (2, 3, 4) for layer in ("conv1", "shortcut.0")
    ]
    assert [row.input_size[0] for row in strided] == [33, 33, 17, 17, 9, 9]
    assert [row.output_size[0] for row in strided] == [17, 17, 9, 9, 5, 5]
    assert len(report.rows) == 1 + 4 * 4 + 3 + 1 and report.rows[0].name == "stem" and report.rows[-1].name == "head.0"


@pytest.mark.parametrize("name, size, exact, nearest", [
    ("p4_resnet18", 32, False, (25, 33)), ("p4m_resnet18", 224, False, (217, 225)), ("p4_resnet18", 225, True, (225,)),
    ("p4_resnet44", 32, False, (29, 33)), ("p4_resnet44", 96, False, (93, 97)), ("z2_resnet44", 97, True, (97,)),
    ("p4_resnet44", (32, 33), False, ((29, 33), (33, 33))), ("p4_resnet44", (33, 37), True, ((33, 37),)),
    ("p4cnn", 27, False, (26, 28)), ("p4cnn", 28, True, (28,)), ("p4cnn", 29, False, (28, 30)),
    ("noise_p4_cnn", 28, True, (28,)),
])  # fmt: skip
def test_networks_of_the_papers(name, size, exact, nearest):
    """Paper 3's sizes: 224 against 225, 96 against 97, 32 against 33, 28 against 27 and 29."""
    report = exactness(create_model(name, width=1), size)
    assert report.exact is exact and report.nearest_sizes == nearest


def test_nearest_sizes_are_all_there_are():
    network = nn.Sequential(
        gnn.LiftingConv2d(1, 1, 3, stride=3), gnn.GroupConv2d(1, 1, 2, stride=2, padding=1), gnn.SpatialMaxPool2d(3, 2)
    )
    exact = {size for size in range(15, 60) if exactness(network, size).exact}
    assert exact == {24, 36, 48}  # i / 3, which must be even, then i / 6 + 1, which must be odd
    for size in range(27, 47):
        below, above = max(n for n in exact if n <= size), min(n for n in exact if n >= size)
        assert exactness(network, size).nearest_sizes == ((size,) if size in exact else (below, above))


def test_nearest_sizes_on_one_side_alone():
    assert exactness(nn.Sequential(gnn.LiftingConv2d(1, 1, 2, stride=2, padding=1)), 1).nearest_sizes == (2,)
    assert exactness(nn.Sequential(gnn.LiftingConv2d(1, 1, 2, stride=2, padding=1)), (1, 3)).nearest_sizes == ((2, 4),)


class _Between(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.first, self.change, self.last = nn.Conv2d(1, 2, 3), change, nn.Conv2d(2, 2, 3)

    def forward(self, x):
        return self.last(self.change(self.first(x)))


@pytest.mark.parametrize("network, found", [
    (nn.Sequential(nn.Conv2d(1, 1, 3), nn.Upsample(scale_factor=1.5)), ("1", "Upsample", (7, 7), (10, 10))),
    (_Between(lambda x: F.max_pool2d(x, 2)), ("", "_Between", (9, 9), (3, 3))),
    (nn.Sequential(_Between(lambda x: x[..., 1:, 1:])), ("0", "_Between", (9, 9), (6, 6))),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(98, 3)), ("2", "Linear of pixels", (7, 7), ())),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.PixelUnshuffle(7)), ("1", "PixelUnshuffle", (7, 7), (1, 1))),
])  # fmt: skip
def test_what_the_report_does_not_know(network, found):
    report = exactness(network, 9)
    (row,) = [row for row in report.rows if row.holds is None]
    assert (row.name, row.layer, row.input_size, row.output_size) == found and row.remainder is None
    assert not report.exact and report.nearest_sizes == ()
    assert "unknown" in str(report)


@pytest.mark.parametrize("network", [
    _Between(torch.relu), nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)),
    nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3)), nn.BatchNorm2d(2), nn.Dropout()),
])  # fmt: skip
def test_what_keeps_the_size_is_no_news(network):
    report = exactness(network, 9)
    names = {row.layer.split()[0] for row in report.rows}
    assert report.exact and names <= {"Conv2d", "ParametrizedConv2d", "AdaptiveAvgPool2d"}


class _NeedsNumbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = gnn.LiftingConv2d(1, 1, 3, stride=2)

    def forward(self, x):
        return self.conv(x) if x.sum().item() == 0 else None


def test_a_network_that_needs_numbers_runs_on_zeros():
    report = exactness(_NeedsNumbers(), 8)
    assert [row.name for row in report.rows] == ["conv"] and report.nearest_sizes == (7, 9)


def test_the_network_stays_as_it_was():
    network = create_model("p4cnn", width=1).train()
    before, x = copy.deepcopy(network), torch.randn(1, 1, 8, 8)
    exactness(network, 27)
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), before.state_dict().values()))
    assert torch.equal(network.eval()(x), before.eval()(x)) and type(network.layer1[0].weight) is nn.Parameter


def test_input_of_feature_maps():
    block = gnn.GroupResidualBlock2d(2, 4, group="D4", stride=2)
    assert exactness(block, 9).exact and not exactness(block, 8).exact
    assert exactness(gnn.SpatialMaxPool2d(2), 9, channels=(3, 4)).nearest_sizes == (8, 10)
    assert exactness(nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(2)), 8, channels=3).exact


def test_table():
    report = exactness(nn.Sequential(gnn.LiftingConv2d(1, 1, 3, stride=2, padding=1), gnn.SpatialMaxPool2d(2)), 32)
    lines = str(report).splitlines()
    assert lines[0].split("  ")[-1].strip() == "(i + 2p - d(k - 1) - 1) mod s"
    assert lines[1].split() == "0 LiftingConv2d k=3 s=2 p=1 32 x 32 16 x 16 1 breaks".split()
    assert lines[2].split() == "1 SpatialMaxPool2d k=2 s=2 16 x 16 8 x 8 0".split()
    assert lines[3] == "not exact under C4 at 32 x 32: 1 of 2 layers break it; nearest exact sizes: 31 and 35"
    lines = str(exactness(nn.Conv2d(1, 1, 3), (5, 6))).splitlines()
    assert lines[1].startswith("(network)") and lines[2] == "exact under quarter turns and mirrors at 5 x 6"
    assert lines[3].startswith("this is about where the layers sample")


KINDS = st.sampled_from(["conv", "pool"])
LAYER = st.tuples(KINDS, st.integers(1, 4), st.integers(1, 3), st.booleans(), st.integers(1, 2))  # k, s, padded, d
LAYERS = st.lists(LAYER, min_size=1, max_size=3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(LAYERS, st.sampled_from(["C2", "C4", "D1", "D2", "D4"]), st.integers(4, 20), st.integers(4, 20), st.booleans())
def test_the_verdict_is_what_happens(layers, group, height, width, square):
    """Random stacks of strided convolutions and max pooling: the report says exact just where the error is 0."""
    torch.manual_seed(0)
    options = dict(group=group, algorithm="irrep", dtype=torch.float64)
    modules = []
    for kind, k, stride, padded, dilation in layers:
        padding = k // 2 if padded else 0
        if kind == "conv" or not modules:
            conv, fields = (gnn.GroupConv2d, 4) if modules else (gnn.LiftingConv2d, 1)
            modules.append(conv(fields, 4, k, stride=stride, padding=padding, dilation=dilation, **options))
        else:
            modules.append(gnn.SpatialMaxPool2d(k, stride, padding))
    network, size = nn.Sequential(*modules), (height, height if square else width)
    try:
        report = exactness(network, size)
    except ValueError as error:
        assert "model does not take an input" in str(error)
        assume(False)
    for row, (_, k, _, _, dilation) in zip(report.rows, layers):
        # Windows that are as large as the map see nothing but padding or the same pixels wherever they lie.
        assume(min(row.input_size) > dilation * (k - 1) + 1)
    error = equivariance_error(network, torch.randn(2, 1, *size, dtype=torch.float64), group)
    assert report.exact is (error.worst == 0)


@pytest.mark.parametrize(
    "make, error_type, message",
    [
        (lambda: exactness(lambda x: x, 8), TypeError, "model must be a torch.nn.Module, got function"),
        (lambda: exactness(nn.Conv2d(1, 1, 3), 0), ValueError, "input_size must be at least 1, got 0"),
        (lambda: exactness(nn.Conv2d(1, 1, 3), 8.0), TypeError, "input_size must be an int, got float"),
        (lambda: exactness(nn.Conv2d(1, 1, 3), (8, 8, 8)), ValueError, "must be an int or a pair (H, W), got (8, 8"),
        (lambda: exactness(nn.Conv2d(1, 1, 3), 8, channels=0), ValueError, "channels must be at least 1"),
        (lambda: exactness(nn.Conv2d(1, 1, 3), 2), ValueError, "model does not take an input of shape (1, 1, 2, 2): "),
        (lambda: exactness(nn.MaxPool2d(2), 1), ValueError, "model does not take an input of shape (1, 1, 1, 1): "),
        (lambda: exactness(nn.Conv2d(1, 1, 3), 8, channels=2), ValueError, "not take an input of shape (1, 2, 8, 8): "),
    ],
)
def test_bad_arguments(make, error_type, message):
    with pytest.raises(error_type) as error:
        make()
    assert message in str(error.value)


def test_pytorch_logs_no_failure_of_its_own(caplog):
    log = logging.getLogger("torch._subclasses.fake_tensor")
    log.addHandler(caplog.handler)
    try:
        with pytest.raises(ValueError):
            exactness(nn.MaxPool2d(2), 1)
    finally:
        log.removeHandler(caplog.handler)
    assert not caplog.records and not log.disabled
