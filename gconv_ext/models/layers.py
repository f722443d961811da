"""What paper 3's networks are built of: the layers of a group, and their counterparts without one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import nn as gnn
from ..checks import check_tensor
from ..memory_format import for_network


class Layers(NamedTuple):
    """Constructors of the layers of one network.

    Attributes:
        lift: convolution from an image.
        conv: convolution from maps.
        norm: batch normalisation.
        max_pool: spatial max pooling.
        block: residual block.
        head: from maps to a vector [B, C]: mean over space, then maximum over the group where there is one.
        memory_format: in which the network is fastest on the CPU.
    """

    lift: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    max_pool: Callable[..., nn.Module]
    block: Callable[..., nn.Module]
    head: Callable[[], nn.Module]
    memory_format: torch.memory_format


def layers(group: str | None, algorithm: str) -> Layers:
    """The layers over `group`, or plain ones for None, which take algorithm="auto" alone."""
    if group is None:
        if algorithm != "auto":
            raise ValueError(f"algorithm must be 'auto' for a network without group convolutions, got {algorithm!r}")
        return Layers(
            nn.Conv2d, nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, gnn.ResidualBlock2d,
            lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.channels_last,
        )  # fmt: skip
    options: dict[str, Any] = dict(group=group, algorithm=algorithm)
    return Layers(
        partial(gnn.LiftingConv2d, **options), partial(gnn.GroupConv2d, **options), gnn.GroupBatchNorm2d,
        gnn.SpatialMaxPool2d, partial(gnn.GroupResidualBlock2d, **options),
        lambda: nn.Sequential(gnn.SpatialGlobalPool2d("mean"), gnn.GroupPool("max"), nn.Flatten()),
        torch.contiguous_format if algorithm in ("auto", "irrep") else torch.channels_last,
    )  # fmt: skip


class StagedCNN(nn.Module):
    """A network of named stages, then a head and a linear layer.

    Args:
        in_channels: channels of the image.
        stages: {name: module}, called in turn.
        head: from the last stage's maps to [B, width].
        classifier: from [B, width] to logits.
        memory_format: of the image that the first stage gets on the CPU; elsewhere it is torch.channels_last.

    Attributes:
        stages: their names; each is a submodule of that name.

    Shapes: x [B, in_channels, H, W] -> logits [B, num_classes].
    """

    def __init__(
        self, in_channels: int, stages: dict[str, nn.Module], head: nn.Module, classifier: nn.Linear,
        memory_format: torch.memory_format,
    ):  # fmt: skip
        super().__init__()
        self.in_channels, self.stages, self.memory_format = in_channels, tuple(stages), memory_format
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.head, self.classifier = head, classifier

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 4, "[B, C, H, W]")
        if x.shape[1] != self.in_channels:
            raise ValueError(f"x must have {self.in_channels} channels in [B, C, H, W], got shape {tuple(x.shape)}")
        x = for_network(x, self.memory_format)
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.classifier(self.head(x))
