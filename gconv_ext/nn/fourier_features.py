"""Random Fourier features, and the network on them that renders a continuous kernel (paper 2, Eq. 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FourierFeatures(nn.Module):
    """Random Fourier features of frequency ω (paper 2, Eq. 7; Rahimi & Recht 2007):

        γ_ω(α) = √(1/D) · [cos 2πW(α ⊙ ω), sin 2πW(α ⊙ ω)]

    with W [D, dim] drawn from N(0, 1) and kept fixed.  A coordinate with frequency 0 has no influence.

    Args:
        dim: how many coordinates α has.
        num_features: D.
        frequency: ω, one number for all coordinates or one for each.
        learned: whether ω takes part in training.

    Shapes: α [..., dim] -> [..., 2D].
    Parameters: frequency [dim].  Buffers: directions [D, dim].
    """

    directions: Tensor

    def __init__(
        self, dim: int, num_features: int, frequency: Tensor | Sequence[float] | float, learned: bool,
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ):  # fmt: skip
        super().__init__()
        directions = torch.randn(num_features, dim, device=device, dtype=dtype)
        self.register_buffer("directions", directions)
        self.frequency = nn.Parameter(
            torch.as_tensor(frequency, device=device).to(directions).expand(dim).clone(), requires_grad=learned
        )

    def forward(self, alpha: Tensor) -> Tensor:
        phase = 2 * math.pi * (alpha * self.frequency) @ self.directions.t()
        return torch.cat([phase.cos(), phase.sin()], -1) / math.sqrt(self.directions.shape[0])

    def extra_repr(self) -> str:
        num_features, dim = self.directions.shape
        return f"{dim}, num_features={num_features}, learned={self.frequency.requires_grad}"


class NonstationaryKernel(nn.Module):
    """The network of paper 2, Eq. 7, that renders a non-stationary kernel:

        k_oc(v⁻¹u, v) = NN([γ_ω(a), γ_ω'(b)]) = Σ_h weight[o, c, h] · σ(A γ_ω(a) + A' γ_ω'(b) + β)_h

    with a and b the Lie algebra coordinates of v⁻¹u and of v, σ = tanh, and the last layer without a bias.  The paper
    leaves depth, width, σ and initial values of NN open; tanh is smooth, and its derivative needs no memory besides
    its result.  A and A' start as N(0, 1), since γ has length 1, and the last layer so that the kernel has the
    variance 1/(3 · fan_in) that torch.nn.Conv2d starts with.

    Args:
        in_channels, out_channels: of the kernel.
        stationary, absolute: FourierFeatures γ_ω and γ_ω'.
        hidden_channels: how many h.
        fan_in: inputs of one number that the layer computes.

    Shapes: a [..., dim], b [..., dim'] -> [..., out_channels, in_channels].
    Parameters: those of the features, stationary_weight (A) and absolute_weight (A') [hidden, 2D], hidden_bias (β)
        [hidden], weight [out_channels, in_channels, hidden].
    """

    def __init__(
        self, in_channels: int, out_channels: int, stationary: FourierFeatures, absolute: FourierFeatures,
        hidden_channels: int, fan_in: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ):  # fmt: skip
        super().__init__()
        self.stationary, self.absolute = stationary, absolute

        def empty(*sizes: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*sizes, device=device, dtype=dtype))

        self.stationary_weight = empty(hidden_channels, 2 * stationary.directions.shape[0])
        self.absolute_weight = empty(hidden_channels, 2 * absolute.directions.shape[0])
        self.hidden_bias = empty(hidden_channels)
        self.weight = empty(out_channels, in_channels, hidden_channels)
        self._fan_in = fan_in
        self.reset_parameters()

    # E[σ(x)²] where x is the sum of the two parts, N(0, 2).
    _HIDDEN_SQUARE = 0.520

    def reset_parameters(self) -> None:
        nn.init.normal_(self.stationary_weight)
        nn.init.normal_(self.absolute_weight)
        nn.init.zeros_(self.hidden_bias)
        nn.init.normal_(self.weight, std=1 / math.sqrt(3 * self._fan_in * self._HIDDEN_SQUARE * self.weight.shape[2]))

    def stationary_part(self, a: Tensor) -> Tensor:
        """A γ_ω(a) + β, [..., hidden]."""
        return F.linear(self.stationary(a), self.stationary_weight, self.hidden_bias)

    def absolute_part(self, b: Tensor) -> Tensor:
        """A' γ_ω'(b), [..., hidden]."""
        return F.linear(self.absolute(b), self.absolute_weight)

    def hidden(self, stationary_part: Tensor, absolute_part: Tensor) -> Tensor:
        """σ of the sum of the two parts, [..., hidden]."""
        return (stationary_part + absolute_part).tanh_()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("...h,och->...oc", self.hidden(self.stationary_part(a), self.absolute_part(b)), self.weight)
