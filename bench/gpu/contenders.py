"""The contenders on a GPU: our algorithms, and the peers, which convolve with filters that were expanded beforehand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gconv_ext import algorithms, create_model, functional, ops

from ..cases import LayerCase
from ..contenders import from_conv2d, last
from .cases import NETWORKS

OURS = ["triton_irrep", "triton_fused", "irrep", "fused", "dense"]
PEERS = ("conv2d", "escnn")


def ours(weight: Tensor) -> tuple[list[str], dict[str, str]]:
    """Our algorithms that can compute with this filter bank, each family of kernels once, and why not the others."""
    taken: dict[str, str] = {}  # family of kernels -> algorithm
    left_out = {}
    for name in OURS:
        support = algorithms.support(name, weight)
        if support.why_not:
            left_out[name] = support.why_not
        elif support.kernels in taken:
            left_out[name] = f"its kernels here are those of {taken[support.kernels]!r}"
        else:
            taken[support.kernels] = name
    return list(taken.values()), left_out


def is_peer(name: str, is_network: bool) -> bool:
    """Whether our algorithms must beat it; a network's training step must beat dense's too."""
    return name.removeprefix("compiled ").startswith((*PEERS, "dense") if is_network else PEERS)


@contextlib.contextmanager
def precision(dtype: str):
    """PyTorch's settings for a key of DTYPES: TF32 or not, and cuDNN's search for its fastest kernel."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=dtype == "tf32"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


class LayerContender(NamedTuple):
    """One way to compute a layer.

    Attributes:
        compute: the result of the tensors of one copy, as it lies in memory: to flatten ours would copy it where the fields are last.
        inputs: for each copy, x and the filter bank or the expanded filter.
        within: makes the context of each call.
    """

    compute: Callable[..., Tensor]
    inputs: list[list[Tensor]]
    within: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext

    def compiled(self) -> LayerContender:
        return self._replace(compute=torch.compile(self.compute, dynamic=False))

    def in_double(self) -> LayerContender:
        """Its first copy."""
        return self._replace(inputs=[[tensor.double() for tensor in self.inputs[0]]])

    def call(self, pass_: str) -> Callable[[int], tuple[Tensor, ...]]:
        """A function of the number of a copy: the result and, with the backward pass, the gradients to all inputs."""
        step = self._step(pass_)

        def call(copy: int) -> tuple[Tensor, ...]:
            with self.within():
                return step(copy)

        return call

    def _step(self, pass_: str) -> Callable[[int], tuple[Tensor, ...]]:
        if pass_ == "forward":
            return torch.no_grad()(lambda copy: (self.compute(*self.inputs[copy]),))
        with torch.no_grad():
            y = self.compute(*self.inputs[0])
        numbers = torch.cos(torch.arange(y.numel(), device=y.device)).view_as(y)
        slopes = [torch.empty_like(y).copy_(numbers) for _ in self.inputs]
        inputs = [[tensor.detach().requires_grad_() for tensor in tensors] for tensors in self.inputs]

        def step(copy: int) -> tuple[Tensor, ...]:
            y = self.compute(*inputs[copy])
            return (y, *torch.autograd.grad(y, inputs[copy], slopes[copy]))

        return step

    def results(self, pass_: str) -> tuple[Tensor, ...]:
        """What is checked."""
        return self.call(pass_)(0)


class NetworkContender(NamedTuple):
    """Forward and backward of a network on a batch, in bfloat16 autocast."""

    network: torch.nn.Module
    x: Tensor
    labels: Tensor

    def compiled(self) -> NetworkContender:
        return self._replace(network=torch.compile(self.network, dynamic=False))

    def call(self, pass_: str) -> Callable[[int], tuple[Tensor, ...]]:
        parameters = list(self.network.parameters())

        def step(copy: int) -> tuple[Tensor, ...]:
            return torch.autograd.grad(F.cross_entropy(self._logits().float(), self.labels), parameters)

        return step

    def results(self, pass_: str) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (self._logits(),)

    def _logits(self) -> Tensor:
        # Capturing a CUDA graph forbids the cache of cast weights.
        with torch.autocast(self.x.device.type, torch.bfloat16, enabled=self.x.dtype == torch.float32, cache_enabled=False):
            return self.network(self.x)


class Bounds(NamedTuple):
    """What a contender may compute: the results in float64, and how far from each it may be."""

    exact: list[Tensor]
    allowed: list[Tensor]


def bounds(exact, plain: list, pass_: str) -> Bounds:
    """No worse than twice the error of plain PyTorch in the same precision, in the memory format that it does worse in."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
        want = [tensor.double() for tensor in exact.results(pass_)]
    errors = [_errors(contender.results(pass_), want) for contender in plain]
    allowed = [2 * max(error) + 1e-5 * max(1, tensor.abs().max()) for error, tensor in zip(zip(*errors), want)]
    return Bounds(want, allowed)


def wrong(results: tuple[Tensor, ...], bounds: Bounds) -> str | None:
    """Which result is worse than allowed, or None."""
    for number, (error, allowed) in enumerate(zip(_errors(results, bounds.exact), bounds.allowed)):
        if not error <= allowed:
            return f"result {number} is wrong: error {error:.2e}, allowed {allowed:.2e}"
    return None


def _errors(results, exact: list[Tensor]) -> list[Tensor]:
    return [(got.double() - want).abs().max() for got, want in zip(results, exact)]


class Contenders(NamedTuple):
    """Of one setting.

    Attributes:
        eager: {name: contender}.
        bounds: of the contender of that name, compiled or not.
        left_out: {name: why it is not timed}.
        copies: of the inputs, which take turns.
    """

    eager: dict[str, LayerContender | NetworkContender]
    bounds: Callable[[str], Bounds]
    left_out: dict[str, str]
    copies: int


def layer(case: LayerCase, pass_: str, dtype: torch.dtype, device: str, l2_bytes: int) -> Contenders:
    """Together, the copies of x and of the result are twice the second-level cache, so that no call finds its input there."""
    torch.manual_seed(0)
    order = functional.as_group(case.group).order
    elements = () if case.lifting else (order,)
    bank = (case.out_fields, case.in_fields, *elements, 3, 3)
    x = torch.randn(case.batch, case.in_fields, *elements, case.size, case.size, device=device, dtype=dtype)
    result_numbers = case.batch * case.out_fields * order * case.size**2
    copies = -(-2 * l2_bytes // ((x.numel() + result_numbers) * dtype.itemsize)) or 1
    weights = [torch.randn((case.banks, *bank) if case.banks else bank, device=device, dtype=dtype)]
    if case.banks:
        weights.append(torch.randn(case.banks, order, device=device, dtype=dtype))
    relax = {"relax_on": case.relax_on} if case.banks else {}
    kind = f"{'relaxed_' if case.banks else ''}{'lifting' if case.lifting else 'group'}_conv2d"

    def ours_as(algorithm: str) -> Callable[..., Tensor]:
        function, options = getattr(functional, kind), dict(group=case.group, padding=1, algorithm=algorithm, **relax)
        return lambda x, *weights: function(x, *weights, **options)

    formats = {"": x, " channels_last": last(x)}
    if not case.lifting:
        formats[" channels_last_3d"] = x.clone(memory_format=torch.channels_last_3d)
    maps = {format: [x, *(x.clone() for _ in range(copies - 1))] for format, x in formats.items()}
    inputs = {format: [[x, *weights] for x in xs] for format, xs in maps.items()}
    ours_last = [format for format in formats if format != " channels_last" or case.lifting]
    algorithms_, left_out = ours(weights[0])
    in_formats = {name: ["", " channels_last"] if name == "dense" else ours_last for name in algorithms_}  # that need no copy
    eager = {name + format: LayerContender(ours_as(name), inputs[format]) for name in algorithms_ for format in in_formats[name]}
    if "irrep channels_last_3d" in eager and _may_take_wgmma(weights[0]):
        eager["irrep mma.sync channels_last_3d"] = eager["irrep channels_last_3d"]._replace(within=ops.without_wgmma)
    filter = functional.expand_filter(*weights, group=case.group, **relax)
    filters = {"": filter, " channels_last": last(filter)}
    for format, filter in filters.items():
        planes = [[x.flatten(1, -3), filter] for x in maps[format]]
        eager["conv2d" + format] = LayerContender(lambda planes, filter: F.conv2d(planes, filter, padding=1), planes)
    plain = {"ours": [LayerContender(ours_as("reference"), inputs[format]) for format in ours_last]}
    plain["conv2d"] = [eager["conv2d"], eager["conv2d channels_last"]]
    found = {kind: bounds(contenders[0].in_double(), contenders, pass_) for kind, contenders in plain.items()}
    try:
        eager["escnn"], same = _escnn(case, pass_, [x.flatten(1, -3) for x in maps[""]])
        found["escnn"] = bounds(same.in_double(), [same], "forward")
    except (ImportError, ValueError) as error:
        left_out["escnn"] = str(error)

    def bounds_of(name: str) -> Bounds:
        return next((found[peer] for peer in PEERS if peer in name), found["ours"])

    return Contenders(eager, bounds_of, left_out, copies)


def _may_take_wgmma(weight: Tensor) -> bool:
    """Whether "irrep" has two kernels to choose from (csrc/cuda/irrep_fprop.cu)."""
    return weight.is_cuda and weight.itemsize == 2 and torch.cuda.get_device_capability(weight.device)[0] == 9 and len(weight) > 16


def _escnn(case: LayerCase, pass_: str, maps: list[Tensor]) -> tuple[LayerContender, LayerContender]:
    """escnn's own layer of this size, and F.conv2d on its filter: it has another set of filters.  In eval mode, which forward
    takes, it keeps the expanded filter."""
    from escnn import gspaces
    from escnn import nn as enn

    if case.banks:
        raise ValueError("it has no relaxed convolutions")
    space = gspaces.rot2dOnR2(4) if case.group == "C4" else gspaces.flipRot2dOnR2(4)
    in_type = enn.FieldType(space, [space.trivial_repr if case.lifting else space.regular_repr] * case.in_fields)
    out_type = enn.FieldType(space, [space.regular_repr] * case.out_fields)
    convolution = enn.R2Conv(in_type, out_type, kernel_size=3, padding=1, bias=False).to(maps[0])
    filter = convolution.expand_parameters()[0].detach()
    convolution.train(pass_ != "forward")

    def compute(planes: Tensor, weights: Tensor) -> Tensor:
        return torch.func.functional_call(convolution, {"weights": weights}, enn.GeometricTensor(planes, in_type)).tensor

    same = LayerContender(lambda planes, filter: F.conv2d(planes, filter, padding=1), [[maps[0], filter]])
    return LayerContender(compute, [[planes, convolution.weights.detach()] for planes in maps]), same


def network(name: str, device: str) -> Contenders:
    """Training steps of our network by algorithm, and of its copy from F.conv2d on filters that were expanded once.  All bring
    the image into torch.channels_last, and compute in that or, by our own kernels, in torch.channels_last_3d."""
    torch.manual_seed(0)
    base = create_model(name, algorithm="reference").to(device)
    x = torch.randn(64, base.in_channels, NETWORKS[name], NETWORKS[name], device=device)
    labels = torch.randint(10, (64,), device=device)
    algorithms_, left_out = ours(next(base.parameters()).detach().bfloat16())

    def contender(algorithm: str, dtype: torch.dtype = torch.float32) -> NetworkContender:
        network = create_model(name, algorithm=algorithm).to(device, dtype)
        network.load_state_dict(base.state_dict())
        return NetworkContender(network, x.to(dtype), labels)

    eager = {algorithm: contender(algorithm) for algorithm in algorithms_}
    eager["conv2d"] = NetworkContender(from_conv2d(base).to(device), x, labels)
    found = bounds(contender("reference", torch.float64), [contender("reference")], "training step")
    return Contenders(eager, lambda name: found, left_out, 1)
