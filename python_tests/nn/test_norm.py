import pytest
import torch
import torch.nn.functional as F

from gconv_ext import nn


def map_of(*sizes):
    """With another mean and variance in every field."""
    field = torch.arange(sizes[1]).view(-1, 1, 1, 1)
    return torch.randn(sizes).double() * (field + 1) + field


@pytest.mark.parametrize("sizes", [(2, 3, 4, 5, 7), (1, 3, 8, 1, 1), (3, 3, 1, 6, 6), (2, 3, 3, 4, 4), (0, 3, 4, 5, 5)])
def test_the_statistics_of_torch(sizes):
    """|P| = 3 is no point group's order: right all the same."""
    x, weight, bias = map_of(*sizes), torch.randn(3).double(), torch.randn(3).double()
    for layer, want in (
        (nn.GroupLayerNorm2d(3, eps=1e-3), F.group_norm(x, 1, weight, bias, 1e-3)),
        (nn.GroupInstanceNorm2d(3, eps=1e-3, affine=True), F.group_norm(x, 3, weight, bias, 1e-3)),
    ):
        layer.double().load_state_dict({"weight": weight, "bias": bias})
        assert torch.allclose(layer(x), want, rtol=0, atol=1e-12)


def test_without_affine():
    x = map_of(2, 3, 4, 5, 5)
    assert torch.allclose(nn.GroupInstanceNorm2d(3)(x), F.group_norm(x, 3), rtol=0, atol=1e-12)
    assert not [*nn.GroupInstanceNorm2d(3).parameters(), *nn.GroupLayerNorm2d(3, affine=False).parameters()]


def test_bfloat16_is_normalised_in_float32():
    """Numbers around 100: in bfloat16 their mean would lose the differences."""
    x = (torch.randn(2, 3, 4, 16, 16) + 100).bfloat16()
    got = nn.GroupLayerNorm2d(3).bfloat16()(x)
    assert got.dtype == torch.bfloat16 and (got.float() - F.group_norm(x.float(), 1)).abs().max() < 0.02


@pytest.mark.parametrize("call, error_type, message", [
    (lambda: nn.GroupLayerNorm2d(0), ValueError, "num_features must be at least 1, got 0"),
    (lambda: nn.GroupInstanceNorm2d(2.0), TypeError, "num_features must be an int, got float"),
    (lambda: nn.GroupLayerNorm2d(2)(torch.ones(1, 3, 4, 2, 2)), ValueError, "x must have num_features = 2 fields"),
])  # fmt: skip
def test_refusals(call, error_type, message):
    with pytest.raises(error_type) as error:
        call()
    assert message in str(error.value)
