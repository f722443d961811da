"""Paper 3's residual networks, plain, over p4 and over p4m: ResNet18 and ResNet44 with pre-activation blocks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from .layers import StagedCNN, layers

BLOCKS = {18: (2, 2, 2, 2), 44: (7, 7, 7)}  # of each stage, two 3 x 3 convolutions a block
WIDTHS = {None: {18: 64, 44: 32}, "C4": {18: 32, 44: 16}, "D4": {18: 23, 44: 12}}  # fields of the first stage


class ResNet(StagedCNN):
    """A 3 x 3 stem, stages of pre-activation blocks, which but for the first start with stride 2 and double the fields,
    batch norm and ReLU, mean over space, maximum over the group where there is one, a linear layer.

    Exact at sizes i with (i − 1) mod 8 = 0 (ResNet18, such as 33 and 225) or mod 4 (ResNet44, such as 33 and 97).  With
    10 classes the p4 networks have 11.17 M and 2.63 M parameters as in the published runs; w / √|P| fields keep about
    the count of a plain network of w channels.

    Args:
        group: "C4", "D4", … or None for the plain network.
        blocks: number of blocks of each stage.
        in_channels: channels of the image.
        num_classes: of the result.
        width: fields of the first stage.
        algorithm: see gconv_ext.functional; "auto" for the plain network.

    Attributes:
        stages: "stem", "stage1", …, "last" (batch norm and ReLU).

    Shapes: x [B, in_channels, H, W] -> logits [B, num_classes], invariant under the group at the sizes above.

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    def __init__(
        self, group: str | None, blocks: tuple[int, ...], in_channels: int, num_classes: int, width: int,
        algorithm: str = "auto",
    ):  # fmt: skip
        kit = layers(group, algorithm)
        stages = {"stem": kit.lift(in_channels, width, 3, padding=1, bias=False)}
        fields = width
        for number, count in enumerate(blocks, 1):
            out = width * 2 ** (number - 1)
            first = kit.block(fields, out, stride=1 if number == 1 else 2)
            stages[f"stage{number}"] = nn.Sequential(first, *(kit.block(out, out) for _ in range(count - 1)))
            fields = out
        stages["last"] = nn.Sequential(kit.norm(fields), nn.ReLU())
        super().__init__(in_channels, stages, kit.head(), nn.Linear(fields, num_classes), kit.memory_format)


def _resnet(group: str | None, depth: int) -> Callable[..., ResNet]:
    def make(
        in_channels: int = 3, num_classes: int = 10, width: int = WIDTHS[group][depth], algorithm: str = "auto"
    ) -> ResNet:
        return ResNet(group, BLOCKS[depth], in_channels, num_classes, width, algorithm)

    return make


RESNETS = {
    f"{name}_resnet{depth}": _resnet(group, depth)
    for depth in BLOCKS for name, group in (("z2", None), ("p4", "C4"), ("p4m", "D4"))
}  # fmt: skip
