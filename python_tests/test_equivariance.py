import cases
import pytest
import torch

import gconv_ext
from gconv_ext import equivariance_error, transform_feature_map, transform_image


def moved(kind, x, group, g):
    return (transform_image if cases.is_lifting(kind) else transform_feature_map)(x, group, g)


@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep"])
@pytest.mark.parametrize("options", [
    dict(k=1), dict(k=2), dict(k=3, padding=1), dict(k=5, padding=2), dict(k=3, dilation=2, padding=1),
    dict(k=3, stride=2, padding=1, size=(7, 9)), dict(k=4, stride=3, padding=1, size=(8, 11)),
])  # fmt: skip
def test_every_element(kind, group, algorithm, options):
    """conv(g·x) = g·conv(x) for strict and for constant relaxed weights, square and not."""
    planar = {name: options[name] for name in ("stride", "padding", "dilation") if name in options}
    for size in {options.get("size", (6, 8)), (options.get("size", (6, 8))[0],) * 2}:
        x, weight, *relaxed, bias = cases.make(kind, group, k=options["k"], size=size)
        relaxed = [w[:, :1].expand(-1, group.order) for w in relaxed]

        def conv(x):
            return cases.call(kind, [x, weight, *relaxed, bias], group, algorithm=algorithm, **planar)

        error = equivariance_error(conv, x, group)
        assert error.worst <= 1e-12
        y = conv(x)
        for g in range(1, group.order):  # the maps have no symmetry of their own that would hide a mistake
            turned = transform_feature_map(y, group, g)
            assert turned.shape != y.shape or (turned - y).abs().max() > 0.1


def test_unequal_relaxed_weights_break_equivariance(kind, group):
    if "relaxed" not in kind or group.order == 1:
        pytest.skip("nothing to break")
    x, *rest = cases.make(kind, group, size=(6, 6))
    error = equivariance_error(lambda x: cases.call(kind, [x, *rest], group, padding=1), x, group)
    assert error.relative[0] == 0
    assert (error.relative[1:] > 1e-2).all()


def test_a_stride_that_does_not_fit_breaks_equivariance():
    """Paper 3, Eq. 3: (i + 2p − k) mod s must be 0."""
    conv = gconv_ext.nn.LiftingConv2d(1, 2, 3, group="C4", stride=2, dtype=torch.float64)
    assert equivariance_error(conv, torch.randn(1, 1, 33, 33).double(), "C4").worst <= 1e-12
    assert equivariance_error(conv, torch.randn(1, 1, 32, 32).double(), "C4").worst > 1e-2


def test_values_of_the_error():
    """Eq. 14 and the relative maximum, worked out by hand for a function that adds a fixed image."""
    added = torch.tensor([[[[3.0, 0.0], [0.0, 0.0]]]])
    error = equivariance_error(lambda x: x + added, torch.zeros(1, 1, 2, 2), "C4")
    # added − r·added holds 3 and −3 among 4 pixels: sqrt(9 + 9) / 4, and 3 / 3.
    assert error.eq14.tolist() == pytest.approx([0, 18**0.5 / 4, 18**0.5 / 4, 18**0.5 / 4])
    assert error.relative.tolist() == [0, 1, 1, 1] and error.worst == 1
    invariant = equivariance_error(lambda x: x[:, 0, 0, :1] + 1, torch.eye(2)[None, None], "C4")
    assert invariant.eq14.tolist() == [0, 1, 0, 1] and invariant.relative.tolist() == [0, 0.5, 0, 0.5]
    assert "Eq. 14" in str(error) and len(str(error).splitlines()) == 5


@pytest.mark.parametrize(
    "function, x, error_type, message",
    [
        (3, torch.ones(1, 1, 2, 2), TypeError, "fn must be a module or function, got int"),
        (lambda x: x, torch.ones(2, 2), ValueError, "x must have 4 or 5 dimensions"),
        (lambda x: x[0, 0, 0], torch.ones(1, 1, 2, 2), ValueError, "fn(x) must have 2 or 4 or 5 dimensions"),
        (lambda x: x.tolist(), torch.ones(1, 1, 2, 2), TypeError, "fn(x) must be a tensor, got list"),
        (lambda x: x[..., :1], torch.ones(1, 1, 2, 2), ValueError, "fn(g·x) has shape (1, 1, 2, 1)"),
    ],
)
def test_bad_arguments(function, x, error_type, message):
    with pytest.raises(error_type) as error:
        equivariance_error(function, x, "C4")
    assert message in str(error.value)
