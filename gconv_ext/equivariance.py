"""Measures how equivariant a network is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .groups import PointGroup, as_group, transform_feature_map, transform_image


class EquivarianceError(NamedTuple):
    """Errors for each element of the group, in the order of its elements.

    Attributes:
        group: the PointGroup.
        eq14: float64 tensor [|P|]; paper 3 (Edixhoven et al.), Eq. 14, averaged over batch and channels:
            (1 / ijk) sqrt(Σ_{ijk} |f(g·x) − g·f(x)|²), i and j over space, k over the group.
        relative: float64 tensor [|P|]; max |f(g·x) − g·f(x)| / max |f(x)|.
    """

    group: PointGroup
    eq14: Tensor
    relative: Tensor

    @property
    def worst(self) -> float:
        """The largest relative error over the elements."""
        return self.relative.max().item()

    def __str__(self) -> str:
        rows = [f"{'element':>8} {'Eq. 14':>12} {'relative':>12}"]
        for g in range(self.group.order):
            rows.append(f"{g:>8} {self.eq14[g].item():>12.3e} {self.relative[g].item():>12.3e}")
        return "\n".join(rows)


def equivariance_error(fn: Callable[[Tensor], Tensor], x: Tensor, group: PointGroup | str) -> EquivarianceError:
    """Compares fn(g·x) with g·fn(x) for each element g of the group.

    Args:
        fn: a module or function.  Its result may be an image [B, C, H, W], a feature map [B, C, |P|, H, W] or an
            invariant vector [B, N]; the number of dimensions tells.  A module is called as it is: put it into eval
            mode first if it holds dropout or batch norm.
        x: [B, C, H, W] or [B, C, |P|, H, W].
        group: a PointGroup or its name.

    Returns:
        EquivarianceError with one entry for each element; the identity's shows run-to-run differences.

    Raises:
        TypeError, ValueError: `fn` is not callable, x or fn(x) has another number of dimensions or is empty, fn(g·x) has not the
            shape of g·fn(x).
    """
    group = as_group(group)
    if not callable(fn):
        raise TypeError(f"equivariance_error: fn must be a module or function, got {type(fn).__name__}")

    def move(name: str, tensor: object, g: int, dims: tuple[int, ...]) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"equivariance_error: {name} must be a tensor, got {type(tensor).__name__}")
        if tensor.dim() not in dims:
            raise ValueError(
                f"equivariance_error: {name} must have {' or '.join(map(str, dims))} dimensions, got shape {tuple(tensor.shape)}"
            )
        if not tensor.numel():
            raise ValueError(f"equivariance_error: {name} must not be empty, got shape {tuple(tensor.shape)}")
        return {2: lambda t, *_: t, 4: transform_image, 5: transform_feature_map}[tensor.dim()](tensor, group, g)

    eq14, relative = [], []
    with torch.no_grad():
        moved_inputs = [move("x", x, g, (4, 5)) for g in range(group.order)]
        result = fn(x)
        for g, moved_input in enumerate(moved_inputs):
            expected = move("fn(x)", result, g, (2, 4, 5))
            got = fn(moved_input)
            if got.shape != expected.shape:
                raise ValueError(
                    f"equivariance_error: for element {g}, fn(g·x) has shape {tuple(got.shape)} and "
                    f"g·fn(x) has shape {tuple(expected.shape)}"
                )
            difference = (got.double() - expected.double()).abs()
            maps = difference.flatten(2) if difference.dim() > 2 else difference.unsqueeze(2)
            eq14.append(maps.square().sum(-1).sqrt().div(maps.shape[-1]).mean())
            largest = expected.double().abs().max()
            relative.append(difference.max() / largest if largest > 0 else difference.max())
    return EquivarianceError(group, torch.stack(eq14).cpu(), torch.stack(relative).cpu())
