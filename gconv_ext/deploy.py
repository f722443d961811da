"""A plain PyTorch copy of a network, for deployment: nothing of this package is in it."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from . import functional
from . import nn as layers
from .models.layers import StagedCNN
from .models.noise import _NoiseCNN
from .nn.conv import _Conv2d
from .nn.norm import _SampleNorm2d
from .nn.pooling import _Reduce, _SpatialPool2d


def to_conv2d(model: nn.Module) -> nn.Module:
    """A copy of a network in which every layer of gconv_ext.nn is made of PyTorch's own: Conv2d with the expanded
    filter (functional.expand_filter), batch norm, pooling and reshapes.

    Maps between the layers stay [B, C, |P|, H, W], so that whatever else is in the network works as before.  In eval
    mode, results agree with the network's to rounding.  torch.export, torch.onnx.export, torch.jit.trace and other
    tools take the copy as they take any network.  It can be unpickled without gconv_ext if the rest of the network can:
    that is so for nn.Sequential, and for those networks of create_model that can be copied.

    A filter has |P| times the numbers of its layer's weights.  The copy is for inference: trained further, its filters
    would leave the symmetry.

    Args:
        model: any module, a layer of gconv_ext.nn or one that contains some.

    Returns:
        The copy, in eval mode, with requires_grad off.

    Raises:
        TypeError: model is no module.
        ValueError: a layer that cannot be copied, with its name in the network and why: its filter differs at every
            pixel, its elements are sampled, its class has a forward of its own, or it has forward hooks.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    with torch.no_grad():
        return _plain(copy.deepcopy(model), "", {}).eval().requires_grad_(False)


def _plain(module: nn.Module, name: str, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """The plain form of a module, which may be changed; a module that is in the network twice has one."""
    if module not in done:
        rule = _rule(module, name)
        if rule is None or rule in _CONTAINERS:
            for child, part in module._modules.items():
                if part is not None:
                    module._modules[child] = _plain(part, f"{name}.{child}" if name else child, done)
        done[module] = module if rule is None else rule(module)
    return done[module]


def _rule(module: nn.Module, name: str) -> Callable[[nn.Module], nn.Module] | None:
    """The one for the module's class; None for a module that is not ours."""

    def refusal(why: str) -> ValueError:
        where = f"{name or 'model'} ({type(module).__name__})"
        return ValueError(f"model has a layer that cannot be copied: {where}: {why}")

    kinds = [kind for kind in type(module).__mro__ if issubclass(kind, nn.Module)]
    known = next((kind for kind in kinds if kind in _RULES), None)
    if known is None:
        if any(kind.__module__.startswith("gconv_ext.nn.") for kind in type(module).__mro__):
            raise refusal("it has no form as planar convolutions")
        return None
    rule = _RULES[known]
    if isinstance(rule, str):
        raise refusal(rule)
    if type(module).forward is not known.forward:
        raise refusal(f"its class has a forward other than {known.__name__}'s")
    if module._forward_hooks or module._forward_pre_hooks:
        raise refusal("it has forward hooks, which the copy would not run")
    if getattr(module, "soft_translation", False):
        raise refusal(f"with soft={module.soft!r} its filter differs at every pixel")
    return rule


def _traced(root: nn.Module | Callable[[Tensor], Tensor]) -> nn.Module:
    """A module that does what a function does, or the forward of a module with its layers, which are plain by now."""
    module = fx.symbolic_trace(root)
    for node in module.graph.nodes:
        node.type = None  # annotations that are strings can neither be pickled nor scripted
    module.recompile()
    return module


def _conv2d(
    kind: type[nn.Conv2d | nn.ConvTranspose2d], filter: Tensor, bias: Tensor | None, order: int, groups: int,
    **options: Any,
) -> nn.Module:  # fmt: skip
    """nn.Conv2d or nn.ConvTranspose2d with that filter, and a bias for each field of `order` channels."""
    first, second = filter.shape[0], filter.shape[1] * groups
    channels = (second, first) if kind is nn.Conv2d else (first, second)
    # Without numbers: those of an initialisation would be drawn from the user's generator.
    conv = kind(*channels, filter.shape[-1], groups=groups, bias=bias is not None, device="meta", **options)
    conv.weight = nn.Parameter(filter)
    if bias is not None:
        conv.bias = nn.Parameter(bias.repeat_interleave(order))
    return conv


def _on_planes(conv: nn.Module, fields: int, order: int, *, lifting: bool, activation: str | None = None) -> nn.Module:
    """`conv` with fields and elements as its channels."""
    parts: list[nn.Module] = [] if lifting else [nn.Flatten(1, 2)]
    parts += [conv, nn.Unflatten(1, (fields, order))]
    return nn.Sequential(*parts, *([nn.ReLU()] if activation == "relu" else []))


def _planar_options(layer: _Conv2d) -> dict[str, Any]:
    return dict(stride=layer.stride, padding=layer.padding, dilation=layer.dilation, groups=layer.groups)


def _convolution(layer: _Conv2d) -> nn.Module:
    relaxed: dict[str, Any] = {}
    if hasattr(layer, "relax_on"):
        relaxed = dict(relaxed_weight=layer.relaxed_weight, relax_on=layer.relax_on)
    filter = functional.expand_filter(layer.weight, group=layer.group, **relaxed)
    options = dict(**_planar_options(layer), padding_mode=layer.padding_mode)
    conv = _conv2d(nn.Conv2d, filter, layer.bias, layer.group.order, **options)
    return _on_planes(
        conv, layer.out_channels, layer.group.order, lifting=layer._lifting, activation=layer.activation
    )


def _transposed(layer: layers.GroupConvTranspose2d) -> nn.Module:
    filter, order = functional.expand_filter(layer.weight, group=layer.group), layer.group.order
    options = dict(**_planar_options(layer), output_padding=layer.output_padding)
    conv = _conv2d(nn.ConvTranspose2d, filter, layer.bias, order, **options)
    return _on_planes(conv, layer.out_channels, order, lifting=False)


def _nonstationary(layer: layers.NonstationaryGroupConv2d) -> nn.Module:
    """Strict or soft in the rotation: one filter for all pixels."""
    filter = layer.filter(layer.elements).flatten(2, 3).flatten(0, 1)
    options = dict(stride=layer.stride, padding=layer.padding, groups=1)
    conv = _conv2d(nn.Conv2d, filter, layer.bias, layer.elements, **options)
    return _on_planes(conv, layer.out_channels, layer.elements, lifting=layer._lifting)


class _WeightedBanks(nn.Module):
    """Σ_l weights[l, p] · banks[l, p] + bias, with the banks of a block of fields side by side in its channels."""

    def __init__(self, groups: int, weights: Tensor, bias: Tensor | None):
        super().__init__()
        banks, order = weights.shape[:2]
        self.split = nn.Unflatten(1, (groups, banks, -1, order))
        self.register_buffer("weights", weights[:, None])
        self.register_buffer("bias", None if bias is None else bias[:, None, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        y = (self.split(x) * self.weights).sum(2).flatten(1, 2)
        return y if self.bias is None else y + self.bias


def _relaxed_translation(layer: layers.RelaxedTranslationGroupConv2d) -> nn.Module:
    filter = functional.expand_filter(layer.banks(), group=layer.group)
    options = dict(**_planar_options(layer), padding_mode=layer.padding_mode)
    parts: list[nn.Module] = [] if layer._lifting else [nn.Flatten(1, 2)]
    parts += [_conv2d(nn.Conv2d, filter, None, layer.group.order, **options)]
    parts += [_traced(_WeightedBanks(layer.groups, layer.pixel_weights(), layer.bias))]
    parts += [nn.ReLU()] if layer.activation == "relu" else []
    parts += [nn.Flatten(1, 2)] if isinstance(layer, layers.RelaxedTranslationConv2d) else []
    return nn.Sequential(*parts)


def _with_state_of(layer: nn.Module, plain: nn.Module) -> nn.Module:
    plain.load_state_dict(layer.state_dict(), assign=True)
    return plain


def _batch_norm(layer: layers.GroupBatchNorm2d) -> nn.Module:
    options = (layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    norm = _with_state_of(layer, nn.BatchNorm3d(*options, device="meta"))
    return nn.Sequential(norm, nn.ReLU()) if layer.activation == "relu" else norm


def _layer_norm(layer: _SampleNorm2d) -> nn.Module:
    return _with_state_of(layer, nn.GroupNorm(1, layer.num_features, layer.eps, layer.affine, device="meta"))


def _instance_norm(layer: _SampleNorm2d) -> nn.Module:
    # InstanceNorm3d refuses maps of one number.
    groups = layer.num_features
    return _with_state_of(layer, nn.GroupNorm(groups, groups, layer.eps, layer.affine, device="meta"))


def group_max(x: Tensor) -> Tensor:
    return x.amax(2)


def group_mean(x: Tensor) -> Tensor:
    return x.mean(2)


def spatial_max(x: Tensor) -> Tensor:
    return x.amax((-2, -1), keepdim=True)


def spatial_mean(x: Tensor) -> Tensor:
    return x.mean((-2, -1), keepdim=True)


def global_max(x: Tensor) -> Tensor:
    return x.amax((2, 3, 4))


def global_mean(x: Tensor) -> Tensor:
    return x.mean((2, 3, 4))


def features_mean(x: Tensor) -> Tensor:
    return x.flatten(2).mean(2)


def _reduction(largest: Callable[[Tensor], Tensor], mean: Callable[[Tensor], Tensor]) -> Callable[[_Reduce], nn.Module]:
    return lambda layer: _traced(largest if layer.reduce == "max" else mean)


def _pool(kind: type[nn.MaxPool3d | nn.AvgPool3d]) -> Callable[[_SpatialPool2d], nn.Module]:
    """Windows of one element: of [C, |P|, H, W] the three-dimensional pooling takes |P| as an axis of space."""

    def make(layer: _SpatialPool2d) -> nn.Module:
        return kind((1,) + (layer.kernel_size,) * 2, (1,) + (layer.stride,) * 2, (0,) + (layer.padding,) * 2)

    return make


def _blur(layer: layers.SpatialBlurPool2d) -> nn.Module:
    """k binomial taps are k − 1 means of two neighbours, one after the other."""
    edges = (layer.padding,) * 4 + (0, 0)
    means = [nn.AvgPool3d((1, 2, 2), 1) for _ in range(layer.kernel_size - 2)]
    last = min(layer.kernel_size, 2)
    return nn.Sequential(
        nn.ReflectionPad3d(edges), *means, nn.AvgPool3d((1, last, last), (1, layer.stride, layer.stride))
    )


class _FilteredPlanes(nn.Module):
    """One filter for all planes, which are the depth of a map of one channel."""

    filter: Tensor

    def __init__(self, layer: layers.SpatialFilterPool2d):
        super().__init__()
        self.register_buffer("filter", torch.tensor(layer.taps)[None, None, None])
        self.stride, self.padding = (1, layer.stride, layer.stride), (0, layer.padding, layer.padding)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.conv3d(x.flatten(1, 2).unsqueeze(1), self.filter, stride=self.stride, padding=self.padding)
        return y.squeeze(1).unflatten(1, (x.shape[1], x.shape[2]))


def _filter_pool(layer: layers.SpatialFilterPool2d) -> nn.Module:
    return _traced(_FilteredPlanes(layer))


def _upsample(layer: layers.SpatialUpsample2d) -> nn.Module:
    mode = "nearest" if layer.mode == "nearest" else "trilinear"
    return nn.Upsample(scale_factor=(1, layer.scale_factor, layer.scale_factor), mode=mode)


def _dropout(layer: layers.GroupDropout2d) -> nn.Module:
    return nn.Dropout3d(layer.p)


def _sequence(sequence: nn.Sequential) -> nn.Module:
    return nn.Sequential(*sequence)


def _staged_cnn(network: StagedCNN) -> nn.Module:
    names = (*network.stages, "head", "classifier")
    return nn.Sequential(OrderedDict((name, network.get_submodule(name)) for name in names))


def _noise_cnn(network: _NoiseCNN) -> nn.Module:
    parts = dict(features=network.features, mean=_traced(features_mean), classifier=network.classifier)
    return nn.Sequential(OrderedDict(parts))


_SAMPLED = "its elements are sampled at each call, and the next layer needs them beside the features"

# The plain form of each layer, or why it has none.
_RULES: dict[type[nn.Module], Callable[[Any], nn.Module] | str] = {
    layers.LiftingConv2d: _convolution,
    layers.GroupConv2d: _convolution,
    layers.RelaxedLiftingConv2d: _convolution,
    layers.RelaxedGroupConv2d: _convolution,
    layers.GroupConvTranspose2d: _transposed,
    layers.SeparableGroupConv2d: _traced,
    layers.RelaxedTranslationConv2d: _relaxed_translation,
    layers.RelaxedTranslationLiftingConv2d: _relaxed_translation,
    layers.RelaxedTranslationGroupConv2d: _relaxed_translation,
    layers.NonstationaryLiftingConv2d: _nonstationary,
    layers.NonstationaryGroupConv2d: _nonstationary,
    layers.PartialLiftingConv2d: _SAMPLED,
    layers.PartialGroupConv2d: _SAMPLED,
    layers.PartialPointwiseConv2d: _SAMPLED,
    layers.Augerino: "it moves its input by sampled elements",
    layers.GroupBatchNorm2d: _batch_norm,
    layers.GroupLayerNorm2d: _layer_norm,
    layers.GroupInstanceNorm2d: _instance_norm,
    layers.GroupDropout2d: _dropout,
    layers.GroupPool: _reduction(group_max, group_mean),
    layers.GroupGlobalPool: _reduction(global_max, global_mean),
    layers.SpatialGlobalPool2d: _reduction(spatial_max, spatial_mean),
    layers.SpatialMaxPool2d: _pool(nn.MaxPool3d),
    layers.SpatialAvgPool2d: _pool(nn.AvgPool3d),
    layers.SpatialBlurPool2d: _blur,
    layers.SpatialFilterPool2d: _filter_pool,
    layers.SpatialMaxBlurPool2d: _sequence,
    layers.SpatialUpsample2d: _upsample,
    layers.GroupResidualBlock2d: _traced,
    layers.ResidualBlock2d: _traced,
    StagedCNN: _staged_cnn,
    _NoiseCNN: _noise_cnn,
}
# Those that take their modules' plain forms.
_CONTAINERS = (_traced, _sequence, _staged_cnn, _noise_cnn)
