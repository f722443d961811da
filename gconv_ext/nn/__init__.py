"""Layers.  Channels count fields; feature maps are [B, C, |P|, H, W]."""

from .augerino import Augerino
from .blocks import GroupResidualBlock2d, ResidualBlock2d
from .conv import GroupConv2d, LiftingConv2d
from .distributions import ElementDistribution, distribution_parameters
from .kernel_networks import KernelNetwork
from .norm import GroupBatchNorm2d, GroupDropout2d, GroupInstanceNorm2d, GroupLayerNorm2d
from .nonstationary import NonstationaryGroupConv2d, NonstationaryLiftingConv2d
from .partial import PartialGroupConv2d, PartialLiftingConv2d, PartialPointwiseConv2d, SampledMap
from .pooling import GroupGlobalPool, GroupPool, SpatialAvgPool2d, SpatialGlobalPool2d, SpatialMaxPool2d
from .relaxed import RelaxedGroupConv2d, RelaxedLiftingConv2d
from .relaxed_translation import (
    RelaxedTranslationConv2d,
    RelaxedTranslationGroupConv2d,
    RelaxedTranslationLiftingConv2d,
)
from .resample import SpatialBlurPool2d, SpatialFilterPool2d, SpatialMaxBlurPool2d, SpatialUpsample2d
from .separable import SeparableGroupConv2d
from .transposed import GroupConvTranspose2d

__all__ = [
    "Augerino",
    "ElementDistribution",
    "GroupBatchNorm2d",
    "GroupConv2d",
    "GroupConvTranspose2d",
    "GroupDropout2d",
    "GroupGlobalPool",
    "GroupInstanceNorm2d",
    "GroupLayerNorm2d",
    "GroupPool",
    "GroupResidualBlock2d",
    "KernelNetwork",
    "LiftingConv2d",
    "NonstationaryGroupConv2d",
    "NonstationaryLiftingConv2d",
    "PartialGroupConv2d",
    "PartialLiftingConv2d",
    "PartialPointwiseConv2d",
    "RelaxedGroupConv2d",
    "RelaxedLiftingConv2d",
    "RelaxedTranslationConv2d",
    "RelaxedTranslationGroupConv2d",
    "RelaxedTranslationLiftingConv2d",
    "ResidualBlock2d",
    "SampledMap",
    "SeparableGroupConv2d",
    "SpatialAvgPool2d",
    "SpatialBlurPool2d",
    "SpatialFilterPool2d",
    "SpatialGlobalPool2d",
    "SpatialMaxBlurPool2d",
    "SpatialMaxPool2d",
    "SpatialUpsample2d",
    "distribution_parameters",
]
