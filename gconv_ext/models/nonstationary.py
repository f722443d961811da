"""Paper 2's network, «Relaxing Equivariance Constraints with Non-stationary Continuous Filters»."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..nn import NonstationaryGroupConv2d, NonstationaryLiftingConv2d
from ..nn.nonstationary import check_soft_group
from .ckresnet import CKResNet


class _Map(NamedTuple):
    """A feature map [B, C, N, H, W], as CKResNet passes it on."""

    features: Tensor

    def apply(self, fn: Callable[[Tensor], Tensor]) -> _Map:
        return _Map(fn(self.features))

    def pool(self, reduce: str = "max") -> Tensor:
        return self.features.amax(2) if reduce == "max" else self.features.mean(2)


# What a CKResNet calls takes and gives maps, where the layers themselves have tensors.
class _Lift(NonstationaryLiftingConv2d):
    def forward(self, x: Tensor) -> _Map:  # type: ignore[override]
        return _Map(super().forward(x))


class _Conv(NonstationaryGroupConv2d):
    def forward(self, x: _Map) -> _Map:  # type: ignore[override]
        return x.apply(super().forward)


class _Shortcut(NonstationaryGroupConv2d):
    def forward(self, x: _Map, like: _Map) -> Tensor:  # type: ignore[override]
        return super().forward(x.features)


class _NonstationaryLayers:
    """The layers of one network, and the options that they share."""

    def __init__(self, kernel_size: int, **options: Any):
        self.kernel_size, self._options = kernel_size, options

    def lift(self, in_channels: int, out_channels: int, padding: int) -> nn.Module:
        return _Lift(in_channels, out_channels, self.kernel_size, padding=padding, **self._options)

    def conv(self, in_channels: int, out_channels: int, padding: int) -> nn.Module:
        return _Conv(in_channels, out_channels, self.kernel_size, padding=padding, **self._options)

    def shortcut(self, in_channels: int, out_channels: int) -> nn.Module | None:
        if in_channels == out_channels:
            return None
        return _Shortcut(in_channels, out_channels, 1, bias=False, **self._options)


class NonstationaryCKResNet(CKResNet):
    """The residual network CKResNet over non-stationary convolutions.  The paper names no sizes; these are those of
    paper 4's network, with which it shares its strict and partial baselines.

    Args:
        in_channels, num_classes: 3 and 10 for CIFAR-10.
        width: fields of the lifting layer.
        algorithm: of every layer; see nn.NonstationaryGroupConv2d.
        group: "T2" or "SE2".
        elements: N angles, 4, 8 or 16 in the paper; 4 for "SE2" unless told otherwise, 1 for "T2".
        soft: what is relaxed, "rotation", "translation", "both" or None; only "translation" or None for "T2".  With
            soft translation hidden features are kept for every pixel, tap and pair of elements: with many elements,
            choose a small kernel_size.
        soft_frequency: ω' at the start, of every layer.
        learn_soft_frequency: whether ω' is learned, in every layer for itself; the loss then adds λ ·
        soft_frequency_penalty().
        frequency: ω, of every layer.
        kernel_size: k; the images must be 4k pixels wide, or more.
        hidden_channels: width of the networks that render the kernels.

    Shapes: x [B, in_channels, H, W] -> logits [B, num_classes].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    def __init__(
        self, in_channels: int = 3, num_classes: int = 10, width: int = 32, algorithm: str = "auto", group: str = "SE2",
        elements: int | None = None, soft: str | None = "rotation", soft_frequency: float = 0.5,
        learn_soft_frequency: bool = False, frequency: float = 1.0, kernel_size: int = 7, hidden_channels: int = 32,
    ):  # fmt: skip
        elements = check_soft_group(group, elements, soft)
        layers = _NonstationaryLayers(
            kernel_size, group=group, elements=elements, soft=soft, frequency=frequency, soft_frequency=soft_frequency,
            learn_soft_frequency=learn_soft_frequency, hidden_channels=hidden_channels, algorithm=algorithm,
        )  # fmt: skip
        super().__init__(layers, in_channels, num_classes, width)

    def soft_frequency_penalty(self) -> Tensor:
        """‖ω'‖² of all layers (paper 2, §5.3, without its factor λ)."""
        layers = [
            module
            for module in self.modules()
            if isinstance(module, (NonstationaryLiftingConv2d, NonstationaryGroupConv2d))
        ]
        return torch.stack([layer.soft_frequency_penalty() for layer in layers]).sum()
