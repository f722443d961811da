"""The three networks of paper 1, «Relaxed Equivariance for Anisotropic Noise», p4m variants of two, and one that
relaxes translation.

One input convolution and seven hidden ones, 3 x 3 with padding 1 and ReLU after each, then global average pooling (over
space, and over the group where there is one) and a linear layer.

The paper does not state padding or initialisation.  Ours is He et al. 2015's uniform one, √6 times the layers' own: eight
ReLU layers without normalisation let the signal die out with the smaller weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_tensor
from ..memory_format import for_network
from ..nn import GroupConv2d, LiftingConv2d, RelaxedGroupConv2d, RelaxedLiftingConv2d, RelaxedTranslationConv2d

HIDDEN_CONVOLUTIONS = 7


class _NoiseCNN(nn.Module):
    """Subclasses give the input and the hidden convolution, and the memory format in which they are fastest on the CPU:
    channels last for PyTorch's convolution, rows of pixels for the irrep algorithm."""

    def __init__(
        self, in_channels: int, num_classes: int, width: int, lift: nn.Module, hidden: Callable[[], nn.Module],
        memory_format: torch.memory_format,
    ):  # fmt: skip
        super().__init__()
        self.in_channels, self.memory_format = in_channels, memory_format
        self.features = nn.Sequential(lift, *(hidden() for _ in range(HIDDEN_CONVOLUTIONS)))  # each with its ReLU
        with torch.no_grad():
            for name, parameter in self.features.named_parameters():
                if name.endswith(".weight"):
                    parameter.mul_(math.sqrt(6))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 4, "[B, C, H, W]")
        if x.shape[1] != self.in_channels:
            raise ValueError(f"x must have {self.in_channels} channels in [B, C, H, W], got shape {tuple(x.shape)}")
        features = self.features(for_network(x, self.memory_format))  # every layer keeps the format
        return self.classifier(features.flatten(2).mean(2))

    def equivariance_penalty(self) -> Tensor:
        """Eq. 7 of paper 1 without its factor α, summed over the layers; 0 for a network without relaxed layers."""
        found = (getattr(layer, "equivariance_penalty", None) for layer in self.features)
        penalties = [penalty() for penalty in found if penalty is not None]
        return torch.stack(penalties).sum() if penalties else self.classifier.weight.new_zeros(())


class NoisePlainCNN(_NoiseCNN):
    """The plain network: 20 channels, biases; 25,750 parameters as in the paper.

    Args:
        in_channels, num_classes: 1 and 10 in the paper.
        width: channels of each convolution.
        algorithm: "auto"; the network has no group convolution.

    Shapes: x [B, in_channels, H, W] -> logits [B, num_classes].
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, width: int = 20, algorithm: str = "auto"):
        if algorithm != "auto":
            raise ValueError(f"algorithm must be 'auto' for a network without group convolutions, got {algorithm!r}")
        super().__init__(
            in_channels, num_classes, width,
            nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU()),
            lambda: nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
            torch.channels_last,
        )  # fmt: skip


class _NoiseGroupCNN(_NoiseCNN):
    """Strict convolutions over one group."""

    def __init__(self, group: str, in_channels: int, num_classes: int, width: int, algorithm: str):
        options: dict[str, Any] = dict(group=group, padding=1, bias=False, algorithm=algorithm, activation="relu")
        super().__init__(
            in_channels, num_classes, width,
            LiftingConv2d(in_channels, width, 3, **options), lambda: GroupConv2d(width, width, 3, **options),
            torch.contiguous_format if algorithm in ("auto", "irrep") else torch.channels_last,
        )  # fmt: skip


class NoiseP4CNN(_NoiseGroupCNN):
    """The p4 network: 10 fields, no convolution biases; 25,400 parameters as in the paper.

    Args:
        in_channels, num_classes: 1 and 10 in the paper.
        width: fields of each convolution.
        algorithm: see gconv_ext.functional.

    Shapes: x [B, in_channels, H, W] -> logits [B, num_classes], invariant under quarter turns of x.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, width: int = 10, algorithm: str = "auto"):
        super().__init__("C4", in_channels, num_classes, width, algorithm)


class NoiseP4MCNN(_NoiseGroupCNN):
    """The p4 network over D4, which paper 1 does not have: 7 fields, the width that comes closest to the p4 network's count;
    24,839 parameters.

    Args: as for NoiseP4CNN.

    Shapes: x [B, in_channels, H, W] -> logits [B, num_classes], invariant under quarter turns and reflections of x.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, width: int = 7, algorithm: str = "auto"):
        super().__init__("D4", in_channels, num_classes, width, algorithm)


class _NoiseRelaxedCNN(_NoiseCNN):
    """Relaxed convolutions over one group."""

    def __init__(
        self, group: str, in_channels: int, num_classes: int, width: int, algorithm: str, num_filter_banks: int,
        relax_on: str,
    ):  # fmt: skip
        options: dict[str, Any] = dict(group=group, padding=1, bias=False, algorithm=algorithm, activation="relu")
        options |= {"num_filter_banks": num_filter_banks}
        super().__init__(
            in_channels, num_classes, width, RelaxedLiftingConv2d(in_channels, width, 3, **options),
            lambda: RelaxedGroupConv2d(width, width, 3, relax_on=relax_on, **options),
            torch.contiguous_format if algorithm == "irrep" else torch.channels_last,
        )  # fmt: skip


class NoiseRelaxedP4CNN(_NoiseRelaxedCNN):
    """The relaxed p4 network: 6 fields, L = 3 filter banks, no convolution biases; 27,544 parameters as in the paper.

    Args:
        in_channels, num_classes: 1 and 10 in the paper.
        width: fields of each convolution.
        algorithm: see gconv_ext.functional.
        num_filter_banks: L.
        relax_on: of the hidden layers; "output" as in the code that the paper's is based on, or "input" as in its
            text.  The input layer has no group axis on its input and takes "output".

    Shapes: x [B, in_channels, H, W] -> logits [B, num_classes], invariant under quarter turns of x at the start.
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 10, width: int = 6, algorithm: str = "auto",
        num_filter_banks: int = 3, relax_on: str = "output",
    ):  # fmt: skip
        super().__init__("C4", in_channels, num_classes, width, algorithm, num_filter_banks, relax_on)


class NoiseRelaxedP4MCNN(_NoiseRelaxedCNN):
    """The relaxed network over D4, which paper 1 does not have: 4 fields, the width that comes closest to the relaxed
    p4 network's count; 24,542 parameters.

    Args: as for NoiseRelaxedP4CNN.

    Shapes: x [B, in_channels, H, W] -> logits [B, num_classes], invariant under quarter turns and reflections of x at
        the start.
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 10, width: int = 4, algorithm: str = "auto",
        num_filter_banks: int = 3, relax_on: str = "output",
    ):  # fmt: skip
        super().__init__("D4", in_channels, num_classes, width, algorithm, num_filter_banks, relax_on)


class NoiseRelaxedTranslationCNN(_NoiseCNN):
    """The plain network with relaxed translation in place of biases, which paper 1 does not have: 6 channels, L = 3
    filter banks weighted at each of the 28 x 28 pixels; 25,852 parameters, of which the weights over pixels are 18,816.

    Args:
        in_channels, num_classes: 1 and 10 in the paper.
        width: channels of each convolution.
        algorithm: see gconv_ext.functional.
        num_filter_banks: L.
        input_size: H = W of the images, fixed, since each pixel has weights of its own.

    Shapes: x [B, in_channels, input_size, input_size] -> logits [B, num_classes].
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 10, width: int = 6, algorithm: str = "auto",
        num_filter_banks: int = 3, input_size: int = 28,
    ):  # fmt: skip
        options: dict[str, Any] = dict(
            padding=1, bias=False, algorithm=algorithm, activation="relu", num_filter_banks=num_filter_banks
        )
        super().__init__(
            in_channels, num_classes, width, RelaxedTranslationConv2d(in_channels, width, 3, input_size, **options),
            lambda: RelaxedTranslationConv2d(width, width, 3, input_size, **options), torch.channels_last,
        )  # fmt: skip
