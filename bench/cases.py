"""What is timed: single layers, the papers' among them, and whole training steps."""

from __future__ import annotations

from typing import NamedTuple


class LayerCase(NamedTuple):
    """A 3 x 3 convolution with padding 1.

    Attributes:
        group: name of the point group.
        in_fields, out_fields: 1 input field and lifting=True for a first layer.
        size: height and width of the input, in pixels.
        batch: images.
        banks: L of a relaxed layer; 0 for a strict one.
        relax_on: of a relaxed layer.
        stride: in pixels.
    """

    group: str
    in_fields: int
    out_fields: int
    size: int
    batch: int
    lifting: bool = False
    banks: int = 0
    relax_on: str = "output"
    stride: int = 1

    @property
    def name(self) -> str:
        kind = "lift" if self.lifting else "conv"
        relaxed = f" L={self.banks} {self.relax_on}" if self.banks else ""
        stride = f" /{self.stride}" if self.stride > 1 else ""
        return f"{self.group} {kind} {self.in_fields}-{self.out_fields}{relaxed}{stride} {self.size}² x{self.batch}"


LAYERS = [
    # Paper 1: the p4 and the relaxed p4 network.
    LayerCase("C4", 1, 10, 28, 64, lifting=True),
    LayerCase("C4", 10, 10, 28, 64),
    LayerCase("C4", 1, 6, 28, 64, lifting=True, banks=3),
    LayerCase("C4", 6, 6, 28, 64, banks=3),
    LayerCase("C4", 6, 6, 28, 64, banks=3, relax_on="input"),
    # From the papers' smallest layers to wide ones.
    LayerCase("C4", 5, 5, 28, 64),
    LayerCase("C4", 16, 16, 28, 64),
    LayerCase("C4", 32, 32, 32, 16),
    LayerCase("C4", 64, 64, 32, 16),
    LayerCase("C4", 128, 128, 32, 8),
    LayerCase("D4", 5, 5, 28, 64),
    LayerCase("D4", 10, 10, 28, 64),
    LayerCase("D4", 16, 16, 28, 64),
    LayerCase("D4", 32, 32, 32, 16),
    LayerCase("D4", 64, 64, 32, 8),
    LayerCase("D4", 128, 128, 32, 4),
    # The other groups, strides, small maps, colour images, two filter banks.
    LayerCase("C2", 16, 16, 28, 64),
    LayerCase("D1", 16, 16, 28, 64),
    LayerCase("D2", 16, 16, 28, 64),
    LayerCase("C4", 32, 32, 33, 16, stride=2),
    LayerCase("C4", 64, 64, 8, 32),
    LayerCase("C4", 64, 64, 4, 32),
    LayerCase("C4", 3, 32, 32, 32, lifting=True),
    LayerCase("D4", 3, 16, 32, 32, lifting=True),
    LayerCase("C4", 16, 16, 28, 64, banks=2),
    LayerCase("C4", 16, 16, 28, 64, banks=3),
    LayerCase("D4", 8, 8, 28, 64, banks=3),
]

# Whose peak of memory is measured.
MEMORY = [
    LayerCase("C4", 16, 16, 28, 64),
    LayerCase("C4", 64, 64, 32, 16),
    LayerCase("C4", 128, 128, 32, 8),
    LayerCase("D4", 16, 16, 28, 64),
    LayerCase("D4", 64, 64, 32, 8),
    LayerCase("D4", 128, 128, 32, 4),
]

NETWORKS = ["noise_p4_cnn", "noise_p4m_cnn", "noise_relaxed_p4_cnn"]  # one training step each, batch 64, 28 x 28
