"""Distributions over the elements of a group, fixed or learned, from which a layer samples (paper 4, Sec. 3.4)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_positive
from ..sampled_groups import GROUPS, Elements, check_group, with_mirrors

ROTATIONS = ("uniform", "bernoulli")


class Bernoulli(nn.Module):
    """Keeps each of `count` things with a learned probability pᵢ = sigmoid(logitᵢ), by straight-through Gumbel-softmax:

        soft = sigmoid((logit + g) / temperature),  g logistic;   kept = [soft > ½], with the gradient of soft

    In eval mode, what has pᵢ ≥ ½ is kept.

    Returns:
        kept [count], zeros and ones; and needed [count], bool: what is kept, and in training mode also what is not but
        has a gradient to give, soft > 0.02.
    """

    def __init__(
        self, count: int, temperature: float = 0.5, device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):  # fmt: skip
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature!r}")
        self.temperature = temperature
        self.logit = nn.Parameter(torch.full((count,), 2.0, device=device, dtype=dtype))  # p = 0.88

    @property
    def probability(self) -> Tensor:
        return self.logit.sigmoid()

    def forward(self, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        if not self.training:
            kept = self.logit >= 0
            return kept.to(self.logit.dtype), kept
        draw = torch.rand(self.logit.shape, generator=generator, device=self.logit.device, dtype=self.logit.dtype)
        soft = ((self.logit + draw.logit()) / self.temperature).sigmoid()
        return (soft > 0.5).to(soft.dtype) + (soft - soft.detach()), soft > 0.02

    def extra_repr(self) -> str:
        return f"{len(self.logit)}, temperature={self.temperature}"


class ElementDistribution(nn.Module):
    """Samples the output elements of a layer: at most N rotations, and as many mirrored elements where the group has
    mirrors.

    Not learned, the angles are the whole circle in N equal steps from a random start, φᵢ = (i + ε) / N turns with ε
    uniform in ±½, and the mirrored elements are there always.  Learned, all of it starts so, and

        uniform      n = min(⌈N |θ|⌉, N) angles, φᵢ = |θ| · ((i + ½ + ε) / n − ½): a stratified sample of the uniform
                     distribution over ±θ half turns, θ = 1 at first.  |θ| counts as 1 above 1, where its gradient goes
                     straight through.
        bernoulli    φᵢ = i / N without ε; each but the identity is kept with a probability of its own.
        mirrors      the mirrored elements are kept, all or none, with one probability.

    Elements that a draw does not keep stay in the set with weight 0 while that has a gradient to give, and count for
    nothing in convolutions and in the pooling over elements (batch statistics see them); after that they are left out,
    which saves their time and memory.

    In eval mode ε = 0, and what has a probability of ½ or more is kept.  So in eval mode the same elements are taken at
    every call; they contain C4 or D4 where N is a multiple of 4 and the angles are the whole circle.

    Args:
        group: "SE2", "E2", "D1" (the mirror alone, N = 1) or "T2" (the identity alone, N = 1).
        elements: N, the most rotations that are sampled.
        learned: whether the distribution has parameters.
        rotations: "uniform" or "bernoulli".
        monotonic: keep within the previous layer's set: its θ where that is smaller, no mirrors where it has none.
        temperature: of the Gumbel-softmax.

    Parameters, where learned: theta [] ("uniform") or rotations.logit [N − 1], and mirror.logit [1].
    """

    steps: Tensor

    def __init__(
        self, group: str = "SE2", elements: int = 8, learned: bool = True, rotations: str = "uniform",
        monotonic: bool = False, temperature: float = 0.5, device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):  # fmt: skip
        super().__init__()
        self.group = check_group(group)
        self.rotates, self.mirrors = GROUPS[group]
        self.elements = check_positive("elements", elements)
        if elements > 1 and not self.rotates:
            raise ValueError(f"elements counts rotations, and {group} has 1, got {elements}")
        if rotations not in ROTATIONS:
            raise ValueError(f"rotations must be 'uniform' or 'bernoulli', got {rotations!r}")
        if monotonic and rotations != "uniform":
            raise ValueError(f"monotonic needs rotations='uniform', got {rotations!r}")
        self.learned, self.monotonic = learned and (self.rotates or self.mirrors), monotonic
        self.discrete = learned and self.rotates and rotations == "bernoulli"
        options: dict[str, Any] = dict(device=device, dtype=dtype)
        steps = torch.arange(elements, device=device, dtype=dtype or torch.get_default_dtype())
        self.register_buffer("steps", steps, persistent=False)
        self.theta = nn.Parameter(torch.ones((), **options)) if learned and self.rotates and not self.discrete else None
        self.kept_rotations = Bernoulli(elements - 1, temperature, **options) if self.discrete else None
        self.kept_mirror = Bernoulli(1, temperature, **options) if learned and self.mirrors else None

    @property
    def extent(self) -> Tensor:
        """Scalar; the share of the circle that the angles are drawn from."""
        if self.theta is None:
            return self.steps.new_ones(())
        theta = self.theta.abs()
        return theta.detach().clamp(max=1) + (theta - theta.detach())

    def forward(self, generator: torch.Generator | None = None, within: Elements | None = None) -> Elements:
        """Samples once.

        Args:
            generator: for the draws; without one they follow torch.manual_seed.
            within: the elements of the layer's input, for monotonic=True.
        """
        if self.monotonic and within is None:
            raise ValueError("within must be the elements of the layer's input for monotonic=True, got None")
        bound = within if self.monotonic else None
        extent = self.extent if bound is None else torch.minimum(self.extent, bound.extent)
        turns, circle, weights = self._rotations(extent, generator)
        n, mirrors = len(turns), self.mirrors and (bound is None or bound.mirrors)
        if mirrors and self.kept_mirror is not None:
            kept, needed = self.kept_mirror(generator)
            if bound is not None and bound.weights is not None:
                kept = kept * bound.weights[-1]
            mirrors = needed.item()  # decides shapes; the gradient goes through the weights
            if mirrors and self.training:
                weights = turns.new_ones(n) if weights is None else weights
                weights = torch.cat([weights, kept * weights])
        elif mirrors and weights is not None:
            weights = torch.cat([weights, weights])
        if mirrors:
            turns = with_mirrors(turns, circle)
        return Elements(turns, n, mirrors, circle, extent, weights)

    def _rotations(self, extent: Tensor, generator: torch.Generator | None) -> tuple[Tensor, bool, Tensor | None]:
        """Angles [n], whether they are the whole circle in equal steps, and their weights."""
        if not self.rotates:
            return self.steps * 0, True, None
        if self.kept_rotations is not None:
            kept, needed = self.kept_rotations(generator)
            # The identity always.
            kept, needed = torch.cat([kept.new_ones(1), kept]), torch.cat([needed.new_ones(1), needed])
            turns = _wrapped(self.steps[needed] / self.elements)
            return turns, len(turns) == self.elements, kept[needed] if self.training else None
        start: Tensor | float = 0
        if self.training:
            start = torch.rand((), generator=generator, device=self.steps.device, dtype=self.steps.dtype) - 0.5
        # A number, because it decides shapes.
        share = 1.0 if self.theta is None and not self.monotonic else extent.item()
        if share == 1:
            return extent * _wrapped((self.steps + start) / self.elements), True, None
        n = max(1, math.ceil(self.elements * share))
        return extent * ((self.steps[:n] + (0.5 + start)) / n - 0.5), False, None

    def extra_repr(self) -> str:
        kind = "bernoulli" if self.discrete else "uniform"
        learned = f"learned=True, rotations={kind!r}" if self.learned else "learned=False"
        return f"{self.group}, elements={self.elements}, {learned}" + (", monotonic=True" if self.monotonic else "")


def _wrapped(turns: Tensor) -> Tensor:
    """The same angles in [−½, ½) turns."""
    return (turns + 0.5).remainder(1) - 0.5


def distribution_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of all distributions in a network, for a group of their own in the optimizer."""
    return [p for m in module.modules() if isinstance(m, ElementDistribution) for p in m.parameters()]
