"""torch.func over whole networks: ensembles, gradients of single samples, forward mode, second derivatives."""

import copy

import pytest
import torch
from networks import small_network
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vmap

from gconv_ext import explain, nn

each_algorithm = pytest.mark.parametrize("algorithm", ["irrep", "dense"])


def single(algorithm):
    """In float64 and eval mode: its parameters, and loss and result as functions of them."""
    network = small_network(algorithm).double().eval()

    def result(parameters, x):
        return functional_call(network, parameters, (x,))

    return dict(network.named_parameters()), result, lambda parameters, x: result(parameters, x).square().sum()


@each_algorithm
def test_an_ensemble(algorithm):
    """Networks with other weights in one call, on the same images and on their own; results, and the gradients of
    each."""
    networks = [small_network(algorithm).double().eval() for _ in range(3)]
    for network in networks:
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    parameters, buffers = stack_module_state(networks)
    base = copy.deepcopy(networks[0]).to("meta")

    def run(parameters, buffers, x):
        return functional_call(base, (parameters, buffers), (x,))

    def loss(parameters, buffers, x):
        return run(parameters, buffers, x).square().sum()

    images = torch.randn(3, 2, 1, 8, 8).double()
    same = vmap(run, in_dims=(0, 0, None))(parameters, buffers, images[0])
    own, gradients = (vmap(f)(parameters, buffers, images) for f in (run, grad(loss)))
    for index, network in enumerate(networks):
        assert torch.allclose(same[index], network(images[0]), rtol=1e-10)
        y = network(images[index])
        assert torch.allclose(own[index], y, rtol=1e-10)
        y.square().sum().backward()
        for name, parameter in network.named_parameters():
            assert torch.allclose(gradients[name][index], parameter.grad, rtol=1e-9, atol=1e-12), name


@each_algorithm
def test_the_gradients_of_single_samples(algorithm):
    parameters, _, loss = single(algorithm)
    x = torch.randn(4, 1, 8, 8).double()
    each = vmap(grad(lambda parameters, x: loss(parameters, x[None])), in_dims=(None, 0))(parameters, x)
    for index in range(4):
        for name, want in grad(loss)(parameters, x[index : index + 1]).items():
            assert torch.allclose(each[name][index], want, rtol=1e-9, atol=1e-12), name


def test_forward_mode():
    """Derivatives along a direction of weights and image, and the two Jacobians: "auto" takes the reference."""
    parameters, result, _ = single("auto")
    x, step = torch.randn(2, 1, 8, 8).double(), 1e-6
    directions = {name: torch.randn_like(value) for name, value in parameters.items()}
    along = torch.randn_like(x)

    def moved(t):
        return result({name: value + t * directions[name] for name, value in parameters.items()}, x + t * along)

    _, got = jvp(result, (parameters, x), (directions, along))
    assert torch.allclose(got, (moved(step) - moved(-step)) / (2 * step), rtol=1e-6)
    for argument in (0, 1):
        forward, backward = (jacobian(result, argument)(parameters, x[:1]) for jacobian in (jacfwd, jacrev))
        pairs = [(forward, backward)] if argument else [(forward[name], backward[name]) for name in parameters]
        assert all(torch.allclose(one, other, rtol=1e-9, atol=1e-12) for one, other in pairs)


def test_second_derivatives():
    """Of the loss to relaxed weights: the Hessian, forward over reverse, against reverse over reverse."""
    parameters, _, loss = single("auto")
    x, name = torch.randn(2, 1, 8, 8).double(), "5.relaxed_weight"

    def of_weights(weights):
        return loss(parameters | {name: weights}, x)

    got, want = hessian(of_weights)(parameters[name]), jacrev(jacrev(of_weights))(parameters[name])
    assert want.abs().max() > 0 and torch.allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer, x", [
    (nn.GroupConvTranspose2d(2, 2, 4, stride=2), torch.randn(1, 2, 4, 4, 4)),
    (nn.NonstationaryGroupConv2d(2, 2, 3, soft="both"), torch.randn(1, 2, 4, 5, 5)),
])  # fmt: skip
def test_forward_mode_of_other_layers(layer, x):
    layer, x = layer.double(), x.double()
    _, got = jvp(layer, (x,), (x,))
    assert torch.allclose(got, layer(x) - layer(0 * x), rtol=1e-9, atol=1e-12)  # affine in x


@pytest.mark.parametrize("layer, refused", [
    (nn.GroupConv2d(2, 2, 3, algorithm="irrep"), True),
    (nn.GroupConv2d(2, 2, 3, algorithm="irrep", activation="relu"), True),
    (nn.GroupConv2d(2, 2, 3, algorithm="dense"), False),
    (nn.SpatialAvgPool2d(3), True),
    (nn.GroupBatchNorm2d(2), False),
    (nn.NonstationaryGroupConv2d(2, 2, 3, soft="both"), True),
], ids=lambda value: repr(value)[:12])  # fmt: skip
def test_a_backward_pass_loses_no_tangent(layer, refused):
    """Of a forward pass without one: gradients are linear in dy."""
    x = torch.randn(2, 2, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    y = layer.double()(x)
    dy = torch.randn_like(y)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(dy, dy)
        if refused:
            with pytest.raises(NotImplementedError, match="jvp"):
                torch.autograd.grad(y, x, dual)
            return
        got, want = torch.autograd.grad(y, x, dual)[0], torch.autograd.grad(layer(x), x, dy)[0]
        assert torch.allclose(forward_ad.unpack_dual(got).tangent, want, rtol=1e-9, atol=1e-12)


@each_algorithm
def test_forward_mode_of_the_compiled_ops_is_an_error(algorithm):
    parameters, result, _ = single(algorithm)
    x = torch.randn(2, 1, 8, 8).double()
    with pytest.raises(NotImplementedError, match="jvp"):
        jvp(lambda parameters: result(parameters, x), (parameters,), (parameters,))
    explained = []
    jvp(lambda x: explained.append(explain(x, parameters["4.weight"][:, :1].mean(2), group="C4")) or x, (x,), (x,))
    assert explained[0].algorithm == "reference" and "forward-mode" in explained[0].reason
