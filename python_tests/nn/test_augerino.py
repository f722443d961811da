import math

import pytest
import torch

from gconv_ext import PointGroup, nn, transform_image
from gconv_ext.nn.augerino import transformed
from gconv_ext.nn.distributions import ElementDistribution


class Sums(torch.nn.Module):
    """A fixed linear function of the image."""

    def forward(self, x):
        weights = torch.arange(2 * x[0].numel(), dtype=x.dtype).sin().view(2, -1)
        return x.flatten(1) @ weights.T


@pytest.mark.parametrize("size", [(5, 5), (6, 6), (4, 7)])
def test_transformed_moves_as_transform_image_does(size):
    group = PointGroup("D4" if size[0] == size[1] else "D2")
    elements = ElementDistribution("E2", group.order // 2, learned=False, dtype=torch.float64).eval()()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    for g, image in enumerate(transformed(x, elements)):
        assert torch.allclose(image, transform_image(x, group, g), atol=1e-12)


def test_mean_over_the_group():
    model = nn.Augerino(Sums(), "E2", 4, dtype=torch.float64).eval()
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    want = torch.stack([Sums()(transform_image(x, "D4", g)) for g in range(8)]).mean(0)
    assert torch.allclose(model(x), want, atol=1e-12)
    model.train().distribution.kept_mirror.logit.data.fill_(10.0)  # with weights
    model.distribution.theta.data.fill_(0.0)
    want = (Sums()(x) + Sums()(x.flip(-1))) / 2
    assert torch.allclose(model(x), want, atol=1e-12)


def test_gradients_reach_the_distribution():
    model = nn.Augerino(Sums(), "E2", 2, dtype=torch.float64)
    model.distribution.theta.data.fill_(0.8), model.distribution.kept_mirror.logit.data.fill_(8.0)
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64)

    def run(theta):
        return torch.func.functional_call(model, {"distribution.theta": theta}, (x, torch.Generator().manual_seed(1)))

    assert torch.autograd.gradcheck(run, model.distribution.theta)
    model(x).sum().backward()
    assert model.distribution.theta.grad != 0 and model.distribution.kept_mirror.logit.grad != 0


def test_penalty_is_the_distance_from_the_whole_group():
    model = nn.Augerino(Sums(), "E2", 4)
    model.distribution.kept_mirror.logit.data.fill_(math.inf)
    assert model.equivariance_penalty().item() == 0
    model.distribution.theta.data.fill_(0.25), model.distribution.kept_mirror.logit.data.fill_(0.0)
    assert model.equivariance_penalty().item() == pytest.approx(1.25)


def test_bad_arguments():
    with pytest.raises(ValueError, match="x must have 4 dimensions"):
        nn.Augerino(Sums())(torch.ones(3, 3))
