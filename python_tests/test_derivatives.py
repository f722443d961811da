import cases
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from gconv_ext import autograd, functional


@pytest.mark.parametrize("algorithm", ["reference", "dense", "irrep"])
def test_gradcheck(kind, group, algorithm):
    arguments = cases.make(kind, group, batch=1, in_fields=1, out_fields=2, k=2, size=(3, 3))
    arguments = [a.requires_grad_() for a in arguments]

    def run(*arguments):
        return cases.call(kind, arguments, group, stride=2, padding=1, algorithm=algorithm)

    assert gradcheck(run, arguments)
    assert gradgradcheck(run, arguments)


@pytest.mark.parametrize("algorithm", ["dense", "irrep"])
def test_third_order(kind, group, algorithm):
    """The third derivative of the compiled path against that of the reference."""
    arguments = cases.make(kind, group, batch=1, in_fields=2, out_fields=2, k=3, size=(4, 4))
    results = []
    for chosen in ("reference", algorithm):
        inputs = [a.clone().requires_grad_() for a in arguments]
        value = cases.call(kind, inputs, group, algorithm=chosen).pow(3).sum()
        for _ in range(3):
            grads = torch.autograd.grad(value, inputs, create_graph=True)
            value = sum((grad * torch.cos(torch.arange(grad.numel()).view_as(grad))).sum() for grad in grads)
        results.append(value.detach())
    assert torch.allclose(*results, rtol=1e-10)


@pytest.mark.parametrize("needed", [(True, False), (False, True), (True, True)])
def test_only_the_gradients_that_are_needed(group, needed):
    weight, relaxed_weight = torch.randn(2, 3, 2, group.order, 3, 3).double(), torch.randn(2, group.order).double()
    weight.requires_grad_(needed[0]), relaxed_weight.requires_grad_(needed[1])
    filter = functional.expand_filter(weight, relaxed_weight, group=group)
    filter.square().sum().backward()
    assert (weight.grad is not None, relaxed_weight.grad is not None) == needed

    inputs = [a for a in (weight, relaxed_weight) if a.requires_grad]
    assert gradgradcheck(lambda *_: functional.expand_filter(weight[:, :1, :1], relaxed_weight, group=group), inputs)


@pytest.mark.parametrize("algorithm", ["dense", "irrep"])
def test_func_transforms(algorithm):
    """torch.func.grad, vmap over an ensemble of filter banks, and both together."""
    x, weight = torch.randn(2, 2, 4, 6, 6).double(), torch.randn(5, 3, 2, 4, 3, 3).double()

    def loss(weight, algorithm):
        return functional.group_conv2d(x, weight, group="C4", algorithm=algorithm).square().sum()

    for transform in (
        lambda algorithm: torch.func.vmap(lambda w: loss(w, algorithm))(weight),
        lambda algorithm: torch.func.grad(lambda w: loss(w, algorithm))(weight[0]),
        lambda algorithm: torch.func.vmap(torch.func.grad(lambda w: loss(w, algorithm)))(weight),
        lambda algorithm: torch.func.vmap(torch.func.grad(lambda w: loss(w, algorithm)), in_dims=1)(weight.movedim(0, 1)),
    ):
        assert torch.allclose(transform(algorithm), transform("reference"), rtol=1e-11)


def test_vmap_over_relaxed_weights():
    weight, relaxed = torch.randn(2, 3, 2, 4, 3, 3).double(), torch.randn(5, 2, 4).double()
    got = torch.func.vmap(lambda r: functional.expand_filter(weight, r, group="C4", relax_on="input"))(relaxed)
    for index in range(5):
        assert torch.equal(got[index], functional.expand_filter(weight, relaxed[index], group="C4", relax_on="input"))


def test_arguments_of_a_function_by_name():
    """Function.apply does not read forward's signature, so a name or a missing argument must not be lost."""
    weight = torch.randn(2, 2, 4, 3, 3)
    with pytest.raises(TypeError, match="arguments are given by position, got relax_on by name"):
        autograd.ExpandFilter.apply(weight, None, "C4", relax_on="output")
    with pytest.raises(TypeError, match="relax_on"):
        autograd.ExpandFilter.apply(weight, None, "C4")
