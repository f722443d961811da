import pytest
import torch

from gconv_ext import nn, transform_feature_map
from gconv_ext.functional import group_conv2d


@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep", "auto"])
def test_it_is_one_group_convolution_with_a_composed_bank(group, algorithm):
    """Σ_a pointwise[o, c, a] · (a·depthwise[c])."""
    options = dict(stride=2, padding=1, dilation=2)
    layer = nn.SeparableGroupConv2d(3, 5, 3, group, algorithm=algorithm, dtype=torch.float64, **options)
    depthwise, pointwise = layer.depthwise.weight, layer.pointwise.weight
    assert depthwise.shape == (3, 1, group.order, 3, 3) and pointwise.shape == (5, 3, group.order, 1, 1)
    moved = [transform_feature_map(depthwise, group, a).transpose(0, 1) for a in range(group.order)]
    bank = sum(pointwise[:, :, a, None] * moved[a] for a in range(group.order))
    x = torch.randn(2, 3, group.order, 9, 8).double()
    want = group_conv2d(x, bank, layer.pointwise.bias, group=group, **options)
    assert torch.allclose(layer(x), want, rtol=0, atol=1e-12)


def test_options_reach_the_two_convolutions():
    layer = nn.SeparableGroupConv2d(
        2, 4, 3, "D4", padding=1, bias=False, padding_mode="circular", algorithm="irrep", activation="relu"
    )
    assert repr(layer.depthwise) == (
        "GroupConv2d(2, 2, kernel_size=3, group=D4, padding=1, groups=2, padding_mode=circular, algorithm=irrep, "
        "bias=False)"
    )
    assert repr(layer.pointwise) == (
        "GroupConv2d(2, 4, kernel_size=1, group=D4, algorithm=irrep, activation=relu, bias=False)"
    )
    assert layer(torch.randn(1, 2, 8, 5, 5)).min() == 0
