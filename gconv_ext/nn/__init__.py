"""Layers.  Channels count fields; feature maps are [B, C, |P|, H, W]."""

from .blocks import GroupResidualBlock2d, ResidualBlock2d
from .conv import GroupConv2d, LiftingConv2d
from .norm import GroupBatchNorm2d, GroupDropout2d
from .pooling import GroupPool, SpatialAvgPool2d, SpatialGlobalPool2d, SpatialMaxPool2d
from .relaxed import RelaxedGroupConv2d, RelaxedLiftingConv2d

__all__ = [
    "GroupBatchNorm2d",
    "GroupConv2d",
    "GroupDropout2d",
    "GroupPool",
    "GroupResidualBlock2d",
    "LiftingConv2d",
    "RelaxedGroupConv2d",
    "RelaxedLiftingConv2d",
    "ResidualBlock2d",
    "SpatialAvgPool2d",
    "SpatialGlobalPool2d",
    "SpatialMaxPool2d",
]
