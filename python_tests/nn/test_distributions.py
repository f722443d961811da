import math

import pytest
import torch

from gconv_ext.nn.distributions import Bernoulli, ElementDistribution


def angles(distribution, draws=400):
    return torch.stack([distribution().turns for _ in range(draws)])


@pytest.mark.parametrize("theta, count", [
    (1.0, 8), (1.7, 8), (-1.0, 8), (0.99, 8), (0.75, 6), (-0.3, 3), (0.125, 1), (1e-3, 1), (0.0, 1),
])  # fmt: skip
def test_elements_and_range_follow_theta(theta, count):
    distribution = ElementDistribution("SE2", 8, dtype=torch.float64)
    distribution.theta.data.fill_(theta)
    turns = angles(distribution)
    assert turns.shape[1] == count
    bound = min(abs(theta), 1) / 2
    assert turns.abs().max() <= bound and turns.abs().max() >= 0.95 * bound
    assert distribution.eval()().turns.shape == (count,)


@pytest.mark.parametrize("theta", [1.0, 0.7, 0.6, 0.1])
def test_angles_are_uniform(theta):
    """Kolmogorov and Smirnov's test at level 1e-4; each draw is a stratified sample, which makes it no larger."""
    distribution = ElementDistribution("E2", 5, dtype=torch.float64)
    distribution.kept_mirror.logit.data.fill_(math.inf)
    distribution.theta.data.fill_(theta)
    turns = angles(distribution)
    for half in turns.chunk(2, dim=1):
        values = half.flatten().sort().values
        distance = (values / theta + 0.5 - (torch.arange(len(values)) + 0.5) / len(values)).abs().max()
        assert distance < 2.23 / math.sqrt(len(values))


def test_gradient_reaches_theta():
    """φ = θ · base for the same draw, also at θ = 1 and, straight through, above."""
    distribution = ElementDistribution("SE2", 4, dtype=torch.float64)
    for theta in (0.6, 1.0, 1.5):
        distribution.theta.data.fill_(theta)
        turns = distribution(torch.Generator().manual_seed(1)).turns
        weights = torch.randn_like(turns)
        gradient, = torch.autograd.grad((weights * turns).sum(), distribution.theta)
        assert gradient.item() == pytest.approx((weights * turns).sum().item() / min(theta, 1)) and gradient != 0


def test_eval_mode_takes_the_grid():
    distribution = ElementDistribution("E2", 4, dtype=torch.float64).eval()
    assert torch.equal(distribution().turns, torch.tensor([0, 0.25, -0.5, -0.25, 0, 0.25, 0.5, -0.25]).double())
    distribution.theta.data.fill_(0.5)
    assert torch.equal(distribution().turns, torch.tensor([-0.125, 0.125, -0.125, 0.125]).double())
    distribution.theta.data.fill_(0.0)
    assert torch.equal(distribution().turns, torch.zeros(2).double())
    distribution.kept_mirror.logit.data.fill_(-0.1)
    assert torch.equal(distribution().turns, torch.zeros(1).double()) and not distribution().mirrors


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_bernoulli_keeps_at_its_probability(probability):
    """No floor: within 4.5 standard deviations at every p."""
    bernoulli = Bernoulli(3, dtype=torch.float64)
    bernoulli.logit.data.fill_(torch.tensor(probability).logit())
    draws = [bernoulli() for _ in range(1000)]
    kept, needed = torch.stack([kept.detach() for kept, _ in draws]), torch.stack([needed for _, needed in draws])
    assert set(kept.unique().tolist()) <= {0.0, 1.0}
    assert ((kept.mean(0) - probability).abs() <= 4.5 * math.sqrt(probability * (1 - probability) / 1000)).all()
    assert needed[kept == 1].all() and needed[kept == 0].any() == (0 < probability < 1)
    kept, needed = bernoulli.eval()()
    assert (kept == (probability >= 0.5)).all() and torch.equal(kept.bool(), needed)


def test_bernoulli_gradient_is_that_of_the_soft_sample():
    """Also where nothing was kept; what is not needed has next to none."""
    bernoulli = Bernoulli(200, temperature=0.7, dtype=torch.float64)
    kept, needed = bernoulli(torch.Generator().manual_seed(3))
    gradient, = torch.autograd.grad(kept.sum(), bernoulli.logit)
    draw = torch.rand(200, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    soft = ((bernoulli.logit + draw.logit()) / 0.7).sigmoid()
    assert torch.allclose(gradient, soft * (1 - soft) / 0.7) and torch.equal(kept, (soft > 0.5).double())
    assert (needed & (kept == 0)).any() and gradient[~needed].max() < 0.02 / 0.7


@pytest.mark.parametrize("logit", [math.inf, -math.inf])
def test_certain_probabilities_have_finite_gradients(logit):
    bernoulli = Bernoulli(2)
    bernoulli.logit.data.fill_(logit)
    bernoulli()[0].sum().backward()
    assert torch.equal(bernoulli.logit.grad, torch.zeros(2))


def test_discrete_rotations_keep_the_identity():
    distribution = ElementDistribution("SE2", 6, rotations="bernoulli", dtype=torch.float64)
    distribution.kept_rotations.logit.data.fill_(-math.inf)
    elements = distribution()
    assert torch.equal(elements.turns, torch.zeros(1).double()) and elements.weights.tolist() == [1]
    distribution.kept_rotations.logit.data[2] = math.inf
    assert distribution().turns.tolist() == [0, -0.5] and distribution().weights.tolist() == [1, 1]
    distribution.kept_rotations.logit.data.fill_(math.inf)
    assert distribution().circle and len(distribution().turns) == 6
    distribution.kept_rotations.logit.data.fill_(-0.5)
    assert distribution.eval()().turns.tolist() == [0] and distribution().weights is None


def test_weights_say_what_was_kept_and_carry_the_gradient():
    distribution = ElementDistribution("E2", 3, rotations="bernoulli", dtype=torch.float64)
    distribution.kept_mirror.logit.data.zero_(), distribution.kept_rotations.logit.data.zero_()
    seen = set()
    for _ in range(50):
        elements = distribution()
        n, weights = elements.rotations, elements.weights
        assert weights[0] == 1 and set(weights.tolist()) <= {0.0, 1.0}
        if elements.mirrors and n == 3:
            assert torch.equal(weights[n:], weights[n] * weights[:n])
            mirror, = torch.autograd.grad(weights.sum(), distribution.kept_mirror.logit, retain_graph=True)
            rotations, = torch.autograd.grad(weights.sum(), distribution.kept_rotations.logit)
            assert mirror.item() > 0 and (rotations > 0).all()
            seen.add(weights[n].item())
    assert seen == {0.0, 1.0}


def test_monotonic_keeps_within_the_input():
    wide, narrow = (ElementDistribution("E2", 4, monotonic=m, dtype=torch.float64) for m in (False, True))
    wide.theta.data.fill_(0.4)
    wide.kept_mirror.logit.data.fill_(-math.inf)
    outer = wide()
    inner = narrow(within=outer)
    assert len(inner.turns) == 2 and not inner.mirrors and inner.extent.item() == pytest.approx(0.4)
    gradient, = torch.autograd.grad(inner.turns.square().sum(), wide.theta)
    assert gradient != 0  # the subset that binds is the one that learns
    narrow.theta.data.fill_(0.2)
    assert narrow(within=outer).extent.item() == pytest.approx(0.2)
    wide.kept_mirror.logit.data.zero_(), narrow.kept_mirror.logit.data.fill_(math.inf)
    for _ in range(20):
        outer = wide()
        inner = narrow(within=outer)
        assert inner.mirrors == outer.mirrors and (not outer.mirrors or inner.weights[-1] == outer.weights[-1])


def test_draws_follow_generator_and_manual_seed():
    distribution = ElementDistribution("E2", 4)
    one, two = (distribution(torch.Generator().manual_seed(7)).turns for _ in range(2))
    assert torch.equal(one, two)
    torch.manual_seed(5)
    one = distribution().turns
    torch.manual_seed(5)
    assert torch.equal(distribution().turns, one) and not torch.equal(distribution().turns[:1], one[:1])


@pytest.mark.parametrize("arguments, error_type, message", [
    (dict(group="SO3"), ValueError, "group must be one of 'T2', 'SE2', 'D1', 'E2', got 'SO3'"),
    (dict(group=4), TypeError, "group must be a str"),
    (dict(elements=0), ValueError, "elements must be at least 1"),
    (dict(group="T2", elements=2), ValueError, "elements counts rotations, and T2 has 1, got 2"),
    (dict(rotations="normal"), ValueError, "rotations must be 'uniform' or 'bernoulli'"),
    (dict(rotations="bernoulli", monotonic=True), ValueError, "monotonic needs rotations='uniform'"),
    (dict(group="E2", temperature=0), ValueError, "temperature must be positive"),
])  # fmt: skip
def test_bad_arguments(arguments, error_type, message):
    with pytest.raises(error_type) as error:
        ElementDistribution(**arguments)
    assert message in str(error.value)
