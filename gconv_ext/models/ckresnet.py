"""CKResNet, the residual network with continuous kernels of papers 2 and 4, over the layers of a family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_image, check_positive
from ..nn import GroupBatchNorm2d, SpatialMaxPool2d


class CKMap(Protocol):
    """What the layers of a CKResNet pass on, a map like nn.SampledMap: `features` [B, C, N, H, W], `apply(fn)` and
    `pool(reduce)`."""

    @property
    def features(self) -> Tensor: ...

    def apply(self, fn: Callable[[Tensor], Tensor]) -> CKMap: ...

    def pool(self, reduce: str = "max") -> Tensor: ...


class CKLayers(Protocol):
    """The layers of a CKResNet; what they pass on is a CKMap."""

    kernel_size: int

    def lift(self, in_channels: int, out_channels: int, padding: int) -> nn.Module:
        """A module from an image [B, C, H, W] to a map."""

    def conv(self, in_channels: int, out_channels: int, padding: int) -> nn.Module:
        """A module from a map to a map."""

    def shortcut(self, in_channels: int, out_channels: int) -> nn.Module | None:
        """A module from (map, map like the result) to features [B, C, N, H, W]; None where the identity will do."""


class CKResNet(nn.Module):
    """Lift; two residual blocks; a last convolution without padding; the largest value over elements and pixels; a
    linear layer.  32, 32 and 64 fields wide (paper 4, Fig. 3).  A block is

        y = relu(norm(conv(relu(norm(conv(x)))))) + shortcut(x),   then batch norm, pooling, ReLU

    with norm over the elements and pixels of each field, without parameters.

    Args:
        layers: the family of layers.
        in_channels, num_classes: of the image and of the result.
        width: fields of the lifting layer; the blocks have 1 and 2 times as many.
        pool_after: where 2 x 2 pixels are pooled: 0 is the lifting layer, 1 and 2 the blocks.
        last: the last convolution, `layers.conv` without padding if None.

    Shapes: x [B, in_channels, H, W] -> logits [B, num_classes].
    """

    def __init__(
        self, layers: CKLayers, in_channels: int, num_classes: int, width: int, pool_after: Sequence[int] = (0, 1),
        last: nn.Module | None = None,
    ):  # fmt: skip
        super().__init__()
        self.in_channels = check_positive("in_channels", in_channels)
        check_positive("num_classes", num_classes)
        widths = (check_positive("width", width), width, 2 * width)
        pools = [SpatialMaxPool2d(2) if at in pool_after else nn.Identity() for at in range(3)]
        self.lift = layers.lift(in_channels, width, layers.kernel_size // 2)
        self.lift_norm, self.lift_pool = GroupBatchNorm2d(width), pools[0]
        self.blocks = nn.Sequential(*(_Block(layers, widths[i], widths[i + 1], pools[i + 1]) for i in range(2)))
        self.last = layers.conv(widths[-1], widths[-1], 0) if last is None else last
        self.last_norm = GroupBatchNorm2d(widths[-1])
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        check_image(x, self.in_channels)
        y = self.lift(x).apply(lambda f: self.lift_pool(self.lift_norm(f)).relu())
        y = self.last(self.blocks(y)).apply(lambda f: self.last_norm(f).relu())
        return self.classifier(self._pooled(y))

    def _pooled(self, y: CKMap) -> Tensor:
        """[B, C] of a map."""
        return y.pool("max").amax((-2, -1))


class _Block(nn.Module):
    def __init__(self, layers: CKLayers, in_channels: int, out_channels: int, pool: nn.Module):
        super().__init__()
        self.conv1 = layers.conv(in_channels, out_channels, layers.kernel_size // 2)
        self.conv2 = layers.conv(out_channels, out_channels, layers.kernel_size // 2)
        self.shortcut = layers.shortcut(in_channels, out_channels)
        self.norm, self.pool = GroupBatchNorm2d(out_channels), pool

    def forward(self, x: CKMap) -> CKMap:
        y: CKMap = self.conv2(self.conv1(x).apply(_normed_relu)).apply(_normed_relu)
        shortcut = x.features if self.shortcut is None else self.shortcut(x, y)
        return y.apply(lambda f: self.pool(self.norm(f + shortcut)).relu())


def _normed_relu(features: Tensor) -> Tensor:
    return F.layer_norm(features, features.shape[-3:]).relu()
