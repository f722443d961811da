"""The contenders of each case: our algorithms, and the peer, PyTorch's own convolution on an already expanded filter."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import gconv_ext
from gconv_ext import create_model, functional
from gconv_ext.nn import GroupConv2d, LiftingConv2d

from .cases import LayerCase

OURS = ["reference", "dense", "irrep"]
PEERS = ["conv2d", "conv2d channels_last"]
PARTS = ["expansion", "convolutions"]  # of a training step, alone


def last(x: Tensor) -> Tensor:
    """The same map with its planes (fields and elements) last in memory."""
    planes = x if x.dim() == 4 else x.flatten(1, 2)
    planes = planes.clone(memory_format=torch.channels_last)  # contiguous() would leave one plane's strides as they are
    return planes if x.dim() == 4 else planes.unflatten(1, x.shape[1:3])


class Layer:
    """One layer: its tensors, and a function a contender that returns the result as it makes it: ours [B, C_out, |P|, H', W'],
    the peer [B, |P|·C_out, H', W']."""

    def __init__(self, case: LayerCase, dtype: torch.dtype = torch.float32):
        torch.manual_seed(0)
        order = functional.as_group(case.group).order
        elements = () if case.lifting else (order,)
        bank = (case.out_fields, case.in_fields, *elements, 3, 3)
        x = torch.randn(case.batch, case.in_fields, *elements, case.size, case.size, dtype=dtype)
        self.case = case
        self.weights = [torch.randn((case.banks, *bank) if case.banks else bank, dtype=dtype)]
        if case.banks:
            self.weights.append(torch.randn(case.banks, order, dtype=dtype))
        self.relax = {"relax_on": case.relax_on} if case.banks else {}
        self.filter = functional.expand_filter(*self.weights, group=case.group, **self.relax)
        self.planes = {"conv2d": x.flatten(1, -3), "conv2d channels_last": last(x).flatten(1, -3)}
        self.filters = {"conv2d": self.filter, "conv2d channels_last": last(self.filter)}
        self.x = {name: x for name in OURS} | {f"{name} channels_last": last(x) for name in OURS}

    def ours(self, name: str, x: Tensor, weights: list[Tensor]) -> Tensor:
        kind = "lifting" if self.case.lifting else "group"
        function = getattr(functional, f"{'relaxed_' if self.case.banks else ''}{kind}_conv2d")
        algorithm = name.removesuffix(" channels_last")
        options = dict(group=self.case.group, padding=1, stride=self.case.stride, algorithm=algorithm)
        return function(x, *weights, **self.relax, **options)

    def auto(self, gradients: bool) -> list[str]:
        """The contenders that "auto" would take, for each memory format, with or without gradients to come."""
        options = dict(group=self.case.group, padding=1, stride=self.case.stride, **self.relax)
        weights = [w.detach().requires_grad_(gradients) for w in self.weights]
        return [
            gconv_ext.explain(self.x[name].detach().requires_grad_(gradients), *weights, **options).algorithm
            + name.removeprefix("reference")
            for name in ("reference", "reference channels_last")
        ]

    def peer(self, planes: Tensor, filter: Tensor) -> Tensor:
        return F.conv2d(planes, filter, padding=1, stride=self.case.stride)

    def forward(self) -> dict[str, Callable[[], Tensor]]:
        """Inference: no gradients."""
        calls = {name: lambda name=name, x=x: self.ours(name, x, self.weights) for name, x in self.x.items()}
        calls |= {name: lambda name=name: self.peer(self.planes[name], self.filters[name]) for name in PEERS}
        return {name: torch.no_grad()(call) for name, call in calls.items()}

    def forward_backward(self) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
        """Forward, and gradients to the input and to the weights (the peer: to the expanded filter)."""

        def step(compute, inputs):
            inputs = [a.detach().requires_grad_() for a in inputs]

            def call():
                result = compute(*inputs)
                return torch.autograd.grad(result, inputs, torch.ones_like(result))

            return call

        steps = {
            name: step(lambda x, *w, name=name: self.ours(name, x, list(w)), [x, *self.weights]) for name, x in self.x.items()
        }
        return steps | {name: step(self.peer, [self.planes[name], self.filters[name]]) for name in PEERS}


def check(case: LayerCase) -> None:
    """Every contender's result against the float64 reference: no worse than twice the error of the reference in the
    same precision, in the memory format that it does worse in.  Raises AssertionError."""
    exact = Layer(case, torch.float64)
    exact.x = {"reference": exact.x["reference"].float().double()}
    exact.weights = [w.float().double() for w in exact.weights]
    want = exact.forward()["reference"]().flatten(1, 2)
    layer = Layer(case)
    layer.weights = [w.float() for w in exact.weights]
    x = exact.x["reference"].float()
    layer.x = {name: last(x) if name.endswith("channels_last") else x for name in layer.x}
    filter = functional.expand_filter(*layer.weights, group=case.group, **layer.relax)
    layer.filters = {"conv2d": filter, "conv2d channels_last": last(filter)}
    layer.planes = {"conv2d": x.flatten(1, -3), "conv2d channels_last": last(x).flatten(1, -3)}
    errors = {name: (call().flatten(1, -3) - want).abs().max() for name, call in layer.forward().items()}
    allowed = 2 * max(error for name, error in errors.items() if name.startswith("reference")) + 1e-5
    for name, error in errors.items():
        assert error <= allowed, f"{case.name}, {name}: error {error:.2e}, allowed {allowed:.2e}"


class _NoiseConvNetwork(torch.nn.Module):
    """A network of paper 1 rebuilt from F.conv2d on filters that were expanded once."""

    def __init__(self, network):
        super().__init__()
        filters = []
        for layer in network.features:
            relaxed = getattr(layer, "relaxed_weight", None)
            relax = {} if relaxed is None else {"relax_on": layer.relax_on}
            filters.append(last(functional.expand_filter(layer.weight, relaxed, group=layer.group, **relax).detach()))
        self.filters = torch.nn.ParameterList(filters)
        self.classifier, self.order = network.classifier, layer.group.order

    def forward(self, x: Tensor) -> Tensor:
        x = last(x)
        for filter in self.filters:
            x = F.conv2d(x, filter, padding=1).relu()
        return self.classifier(x.unflatten(1, (-1, self.order)).flatten(2).mean(2))


class _Conv2d(torch.nn.Module):
    """One of our layers as F.conv2d on a filter that was expanded once."""

    def __init__(self, layer):
        super().__init__()
        self.filter = torch.nn.Parameter(last(functional.expand_filter(layer.weight, group=layer.group).detach()))
        self.order, self.options = layer.group.order, (None, layer.stride, layer.padding, layer.dilation)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(last(x.flatten(1, -3)), self.filter, *self.options).unflatten(1, (-1, self.order))


def from_conv2d(network):
    """A copy of the network in which F.conv2d on filters that were expanded once does the convolutions."""
    if hasattr(network, "features"):
        return _NoiseConvNetwork(network)
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, (LiftingConv2d, GroupConv2d)):
                parent.add_module(name, _Conv2d(layer))
    network.memory_format = torch.channels_last
    return network


def convolutions(network, x: Tensor, labels: Tensor) -> Callable[[], None]:
    """Forward and backward of each convolution layer alone, on the input and the gradient that it has in the network."""
    calls = []
    hooks = [layer.register_forward_hook(lambda *call: calls.append(call)) for layer in network.features]
    loss = F.cross_entropy(network(x), labels)
    for hook in hooks:
        hook.remove()
    layers, inputs, outputs = zip(*calls)
    gradients = torch.autograd.grad(loss, outputs)
    inputs = [a.detach().requires_grad_(a.requires_grad) for (a,) in inputs]  # an image needs no gradient

    def convolve():
        for layer, a, gradient in zip(layers, inputs, gradients):
            torch.autograd.grad(layer(a), [t for t in (a, *layer.parameters()) if t.requires_grad], gradient)

    return convolve


def training_steps(name: str) -> dict[str, Callable[[], object]]:
    """Forward and backward of a whole network on a batch of 64 digits, by algorithm, and of its copy from F.conv2d;
    "expansion" runs the network's filter expansions alone, "convolutions" its convolution layers alone, as "auto" computes
    them; both forward and backward."""
    torch.manual_seed(0)
    x, labels = torch.randn(64, 1, 28, 28), torch.randint(10, (64,))
    network = create_model(name)
    networks = {algorithm: create_model(name, algorithm=algorithm) for algorithm in ('auto', *OURS)}
    for other in networks.values():
        other.load_state_dict(network.state_dict())
    networks["conv2d channels_last"] = from_conv2d(network)
    want = networks["reference"](x)
    for other in networks.values():
        assert torch.allclose(other(x), want, rtol=1e-3, atol=1e-5)

    def step(network):
        network.zero_grad()
        F.cross_entropy(network(x), labels).backward()

    def expand():
        network.zero_grad()
        for layer in network.features:
            relaxed = getattr(layer, "relaxed_weight", None)
            filter = functional.expand_filter(layer.weight, relaxed, group=layer.group)
            filter.backward(gradients[filter.shape])

    shapes = [functional.expand_filter(layer.weight, getattr(layer, "relaxed_weight", None), group=layer.group).shape for layer in network.features]
    gradients = {shape: torch.randn(shape) for shape in shapes}
    steps = {name: lambda other=other: step(other) for name, other in networks.items()}
    return steps | dict(zip(PARTS, (expand, convolutions(network, x, labels))))
