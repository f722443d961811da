import pytest
import torch
import torch.nn.functional as F
from randomised import randomise_norms

from gconv_ext import equivariance_error, exactness, nn
from gconv_ext.functional import group_conv2d


@pytest.mark.parametrize("stride, fields, projects", [(1, 3, False), (2, 3, True), (1, 5, True), (3, 5, True)])
def test_the_equation(group, stride, fields, projects):
    block = randomise_norms(nn.GroupResidualBlock2d(3, fields, group=group, stride=stride, dtype=torch.float64))
    x = torch.randn(2, 3, group.order, 7, 8, dtype=torch.float64)

    def norm(layer, x):
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    want = group_conv2d(norm(block.norm1, x).relu(), block.conv1.weight, group=group, stride=stride, padding=1)
    want = group_conv2d(norm(block.norm2, want).relu(), block.conv2.weight, group=group, padding=1)
    if projects:
        conv, after = block.shortcut
        want = want + norm(after, group_conv2d(x, conv.weight, group=group, stride=stride))
        assert conv.weight.shape == (fields, 3, group.order, 1, 1) and conv.bias is None
    else:
        want = want + x
    y = block(x)
    assert torch.allclose(y, want, rtol=1e-12, atol=1e-12)
    assert y.shape == (2, fields, group.order, -(-7 // stride), -(-8 // stride))
    assert block.conv1.bias is None and block.conv2.bias is None


def test_exact_where_the_condition_holds(group):
    block = randomise_norms(nn.GroupResidualBlock2d(2, 3, group=group, stride=2, algorithm="irrep"))
    for size, exact in (((9, 9), True), ((9, 7), True), ((8, 8), group.order == 1)):
        # contiguous, as the maps in a network are: PyTorch's batch norm rounds turned views differently.
        error = equivariance_error(lambda x: block(x.contiguous()), torch.randn(2, 2, group.order, *size), group)
        assert (error.relative == 0).all() if exact else error.worst > 1e-3
        assert exactness(block, size).exact is exact


def test_the_plain_block_is_the_block_over_the_trivial_group():
    plain, block = nn.ResidualBlock2d(3, 4, stride=2), nn.GroupResidualBlock2d(3, 4, group="C1", stride=2)
    block.load_state_dict({
        name: value.unsqueeze(2) if value.dim() == 4 else value for name, value in plain.state_dict().items()
    })  # fmt: skip
    x = torch.randn(2, 3, 9, 9)
    assert torch.allclose(block(x[:, :, None])[:, :, 0], plain(x), atol=1e-5)
    assert all(type(m).__module__.startswith("torch.") for m in plain.modules() if m is not plain)


def test_gradients_reach_every_parameter():
    block = nn.GroupResidualBlock2d(2, 3, stride=2)
    block(torch.randn(2, 2, 4, 9, 9)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


@pytest.mark.parametrize(
    "make, error_type, message",
    [
        (lambda: nn.GroupResidualBlock2d(0, 1), ValueError, "in_channels must be at least 1, got 0"),
        (lambda: nn.GroupResidualBlock2d(1, 1.5), TypeError, "out_channels must be an int, got float"),
        (lambda: nn.GroupResidualBlock2d(1, 1, stride=0), ValueError, "stride must be at least 1, got 0"),
        (lambda: nn.GroupResidualBlock2d(1, 1, group="C3"), ValueError, "unknown group 'C3'"),
        (lambda: nn.ResidualBlock2d(1, 1, stride=(2, 2)), TypeError, "stride must be an int, got tuple"),
        (lambda: nn.GroupResidualBlock2d(1, 1)(torch.ones(1, 1, 8, 8)), ValueError, "x must have 5 dimensions"),
    ],
)
def test_bad_arguments(make, error_type, message):
    with pytest.raises(error_type) as error:
        make()
    assert message in str(error.value)
