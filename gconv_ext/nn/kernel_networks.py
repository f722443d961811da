"""Small networks that give the values of a filter at any place: coordinates in, filter values out."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..checks import check_positive

KERNELS = ("siren", "relu", "leaky_relu", "swish")


class Sine(nn.Module):
    """x ↦ sin(ω₀ x)."""

    def __init__(self, omega0: float):
        super().__init__()
        self.omega0 = omega0

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega0 * x)

    def extra_repr(self) -> str:
        return f"omega0={self.omega0}"


class KernelNetwork(nn.Sequential):
    """Filter values as a function of place (paper 4, Sec. 3.5): two hidden layers and a linear one.

        siren          h ↦ sin(ω₀ (W h + b)) twice, then W h + b   (Sitzmann et al. 2020)
        relu, …        the same with ReLU, LeakyReLU or Swish in place of the sine

    A SIREN starts with biases 0, weights uniform in ±1/coordinates in the first layer and in ±√(6/hidden)/ω₀ in the
    others; the other kinds start as torch.nn.Linear does.

    Args:
        coordinates: how many numbers say a place; they should lie in [−1, 1].
        outputs: filter values a place.
        hidden: units of each hidden layer.
        kind: "siren", "relu", "leaky_relu" or "swish".
        omega0: ω₀ of a SIREN.

    Shapes: [..., coordinates] -> [..., outputs].

    Raises:
        TypeError, ValueError: at construction, naming the argument.
    """

    def __init__(
        self, coordinates: int, outputs: int, hidden: int = 32, kind: str = "siren", omega0: float = 10.0,
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ):  # fmt: skip
        check_positive("hidden", hidden)
        if kind not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(map(repr, KERNELS))}, got {kind!r}")
        if not omega0 > 0:
            raise ValueError(f"omega0 must be positive, got {omega0!r}")
        activations: dict[str, Callable[[], nn.Module]] = {
            "siren": lambda: Sine(omega0), "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "swish": nn.SiLU,
        }  # fmt: skip
        activation = activations[kind]
        sizes = ((coordinates, hidden), (hidden, hidden), (hidden, outputs))
        layers = [nn.Linear(inputs, units, device=device, dtype=dtype) for inputs, units in sizes]
        super().__init__(layers[0], activation(), layers[1], activation(), layers[2])
        if kind == "siren":
            first, other = 1 / coordinates, math.sqrt(6 / hidden) / omega0
            for layer, bound in zip(layers, (first, other, other)):
                nn.init.uniform_(layer.weight, -bound, bound)
                nn.init.zeros_(layer.bias)
