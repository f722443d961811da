"""Paper 4's networks, «Learning Partial Equivariances from Data»."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_image, check_positive
from ..nn import (
    GroupBatchNorm2d, GroupDropout2d, PartialGroupConv2d, PartialLiftingConv2d, PartialPointwiseConv2d, SampledMap,
    SpatialMaxPool2d,
)  # fmt: skip
from ..sampled_groups import GROUPS, check_group
from .ckresnet import CKMap, CKResNet

ENDINGS = ("max", "T2", "MLP")


class _PartialLayers:
    """The layers of one network: those options that they share, and the defaults of the paper."""

    def __init__(
        self, group: str, elements: int | None, partial: bool, kernel_size: int, hidden: int, algorithm: str,
        kernel: str, omega0: float, rotations: str, monotonic: bool,
    ):  # fmt: skip
        rotates = GROUPS[check_group(group)][0]
        self.group, self.kernel_size = group, kernel_size
        self.elements = (8 if rotates else 1) if elements is None else elements
        self._kernel: dict[str, Any] = dict(algorithm=algorithm, kernel=kernel, hidden=hidden, omega0=omega0)
        self._distribution: dict[str, Any] = dict(
            elements=self.elements, partial=partial, rotations=rotations, monotonic=monotonic
        )

    def lift(self, in_channels: int, out_channels: int, padding: int) -> PartialLiftingConv2d:
        return PartialLiftingConv2d(
            in_channels, out_channels, self.kernel_size, self.group, self.elements, padding=padding, **self._kernel
        )

    def conv(self, in_channels: int, out_channels: int, padding: int) -> PartialGroupConv2d:
        return PartialGroupConv2d(
            in_channels, out_channels, self.kernel_size, self.group, padding=padding, **self._distribution,
            **self._kernel,
        )  # fmt: skip

    def shortcut(self, in_channels: int, out_channels: int) -> nn.Module | None:
        if self.group == "T2" and in_channels == out_channels:
            return None
        halved = {"hidden": max(1, self._kernel["hidden"] // 2)}
        return _Shortcut(in_channels, out_channels, self.group, bias=False, **self._kernel | halved)

    def last_t2(self, channels: int) -> nn.Module:
        return _T2Conv2d(channels, channels, self.kernel_size, "T2", 1, partial=False, **self._kernel)


class _Shortcut(PartialPointwiseConv2d):
    """As a CKResNet calls it: with a map whose elements are wanted, for the features alone."""

    def forward(self, feature_map: SampledMap, like: SampledMap) -> Tensor:  # type: ignore[override]
        return super().forward(feature_map, like.elements).features


class _T2Conv2d(PartialGroupConv2d):
    """A convolution of the mean over the elements, which forgets them."""

    def forward(self, feature_map: SampledMap, generator: torch.Generator | None = None) -> SampledMap:
        return super().forward(SampledMap(feature_map.pool("mean").unsqueeze(2), self.distribution()), generator)


class PartialCKResNet(CKResNet):
    """Paper 4's residual network; 467,786 parameters for 10 classes over SE(2), and 5 more where partial.

    Args:
        in_channels, num_classes: 1 and 10 for digits.
        width: fields of the lifting layer; 32 in the paper, 10 for its toy tasks.
        algorithm: see gconv_ext.functional.
        group: "SE2", "E2", "D1" (the mirror alone) or "T2" (translations alone).
        elements: N, rotations sampled; 8, or 1 for "D1" and "T2".  The paper counts E2's mirrored elements too, 2N.
        partial: whether each convolution after the lifting one learns its subset of the group.
        ending: "max", the largest value over elements and pixels; for partial=False also "T2", where the last
            convolution sees the mean over the elements and has none, and "MLP", where a linear layer over the elements
            replaces their maximum (paper 4, Table 4).
        kernel, omega0: see nn.PartialLiftingConv2d.
        rotations, monotonic: see nn.distributions.ElementDistribution.
        kernel_size: k; the images must be 4k pixels wide, or more.

    Shapes: x [B, in_channels, H, W] -> logits [B, num_classes].
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 10, width: int = 32, algorithm: str = "auto", group: str = "SE2",
        elements: int | None = None, partial: bool = True, ending: str = "max", kernel: str = "siren",
        omega0: float = 10.0, rotations: str = "uniform", monotonic: bool = False, kernel_size: int = 7,
    ):  # fmt: skip
        if ending not in ENDINGS:
            raise ValueError(f"ending must be one of {', '.join(map(repr, ENDINGS))}, got {ending!r}")
        if partial and ending != "max":
            raise ValueError(f"ending must be 'max' where partial=True, got {ending!r}")
        layers = _PartialLayers(
            group, elements, partial, kernel_size, 32, algorithm, kernel, omega0, rotations, monotonic
        )
        last = layers.last_t2(2 * width) if ending == "T2" else None
        super().__init__(layers, in_channels, num_classes, width, last=last)
        count = layers.elements * (1 + GROUPS[group][1])
        self.mixed = nn.Linear(count, 1) if ending == "MLP" else None

    def _pooled(self, y: CKMap) -> Tensor:
        return super()._pooled(y) if self.mixed is None else self.mixed(y.features.amax((-2, -1))).squeeze(2)


class PartialCNN13(nn.Module):
    """The 13-layer network of Laine & Aila 2017 over sampled elements (paper 4, Sec. 5.1): a lifting convolution and
    eight group convolutions, each with batch norm and ReLU; the mean over elements and pixels; a linear layer.  128
    fields in the first two, 256 in the others; pooling after convolutions 2 and 5, dropout after 2, 5 and 8.
    3,994,410 parameters for 10 classes over SE(2), and 8 more where partial.

    Args:
        in_channels, num_classes: 3 and 10 for CIFAR-10.
        width: fields of the first two convolutions.
        dropout: probability with which a field is dropped.
        The others as for PartialCKResNet.

    Shapes: x [B, in_channels, H, W] -> logits [B, num_classes].
    """

    WIDTHS = (1, 1, 2, 2, 2, 2, 2, 2, 2)  # of the lifting layer and of the convolutions after it

    def __init__(
        self, in_channels: int = 3, num_classes: int = 10, width: int = 128, algorithm: str = "auto",
        group: str = "SE2", elements: int | None = None, partial: bool = True, dropout: float = 0.3,
        kernel: str = "siren", omega0: float = 10.0, rotations: str = "uniform", monotonic: bool = False,
    ):  # fmt: skip
        super().__init__()
        layers = _PartialLayers(group, elements, partial, 3, 8, algorithm, kernel, omega0, rotations, monotonic)
        self.in_channels = check_positive("in_channels", in_channels)
        check_positive("num_classes", num_classes)
        widths = [check_positive("width", width) * factor for factor in self.WIDTHS]
        self.lift, self.lift_norm = layers.lift(in_channels, widths[0], 1), GroupBatchNorm2d(widths[0])
        self.convolutions = nn.ModuleList(layers.conv(a, b, 1) for a, b in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(GroupBatchNorm2d(b) for b in widths[1:])
        self.pool, self.dropout = SpatialMaxPool2d(2), GroupDropout2d(dropout)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        check_image(x, self.in_channels)
        y = self.lift(x).apply(lambda f: self.lift_norm(f).relu())
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms), 1):
            y = convolution(y).apply(lambda f: norm(f).relu())
            if number in (2, 5):
                y = y.apply(self.pool)
            if number in (2, 5, 8):
                y = y.apply(self.dropout)
        return self.classifier(y.pool("mean").mean((-2, -1)))
