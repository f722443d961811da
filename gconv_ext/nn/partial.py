"""Partial group convolutions (paper 4): between sampled sets of elements, which each layer learns the extent of.

A layer renders a filter bank for its elements and calls gconv_ext.functional with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import algorithms, checks, functional
from ..groups import as_group
from ..sampled_groups import (
    GROUPS, Elements, check_group, common_point_group, coset_order, moved_back, relative_coordinates,
)  # fmt: skip
from .distributions import ElementDistribution
from .kernel_networks import KernelNetwork


class SampledMap(NamedTuple):
    """A feature map and the elements that it was sampled at; what partial layers pass on.

    Attributes:
        features: [B, C, N, H, W].
        elements: the N elements.
    """

    features: Tensor
    elements: Elements

    def apply(self, fn: Callable[[Tensor], Tensor]) -> SampledMap:
        """fn, which keeps the element axis, on the features: normalisation, activation, spatial pooling, dropout."""
        return self._replace(features=fn(self.features))

    def pool(self, reduce: str = "max") -> Tensor:
        """The maximum or mean over the elements: [B, C, H, W].

        Where elements have weights, a maximum is right for features that are not negative, as after ReLU: an element
        that was not kept counts like a zero.
        """
        weights = self.elements.weights
        if weights is None:
            return self.features.amax(2) if reduce == "max" else self.features.mean(2)
        weighted = self.features * weights[:, None, None]
        return weighted.amax(2) if reduce == "max" else weighted.sum(2) / weights.sum()


class _SampledConv2d(nn.Module):
    """What the convolutions share: rendering the filter bank, and the convolution with it."""

    disk: Tensor
    taps: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, coordinates: int, stride: int, padding: int,
        bias: bool, algorithm: str, kernel: str, hidden: int, omega0: float, device: torch.device | str | None,
        dtype: torch.dtype | None,
    ):  # fmt: skip
        super().__init__()
        self.in_channels = checks.check_positive("in_channels", in_channels)
        self.out_channels = checks.check_positive("out_channels", out_channels)
        self.kernel_size = checks.check_positive("kernel_size", kernel_size)
        if kernel_size == 2:
            raise ValueError("kernel_size must not be 2, of which no tap lies in the unit disk")
        # Equal on both axes: the elements turn.
        self.stride = checks.as_pair("stride", stride, 1, as_group("C4"))[0]
        self.padding = checks.as_pair("padding", padding, 0, as_group("C4"))[0]
        algorithms.check_algorithm(algorithm)
        self.algorithm = algorithm
        self.kernel = KernelNetwork(coordinates, in_channels * out_channels, hidden, kernel, omega0, device, dtype)
        self.bias = nn.Parameter(torch.zeros(out_channels, device=device, dtype=dtype)) if bias else None

        # Coordinates of the taps in [−1, 1]; those outside the disk are zero, as they leave the kernel when it turns.
        offsets = torch.arange(kernel_size, device="cpu") * 2 - (kernel_size - 1)
        rows, columns = torch.meshgrid(offsets, offsets, indexing="ij")
        disk = (rows.square() + columns.square()).flatten() <= (kernel_size - 1) ** 2
        taps = torch.stack([rows.flatten(), columns.flatten()], dim=-1)[disk] / max(kernel_size - 1, 1)
        like = next(self.kernel.parameters())
        self.register_buffer("disk", disk.nonzero().squeeze(1).to(like.device), persistent=False)
        self.register_buffer("taps", taps.to(like), persistent=False)

    def _render(self, coordinates: Tensor) -> Tensor:
        """ψ at coordinates [..., T, D] of the disk's taps: [C_out, C_in, ..., k, k]."""
        with torch.autocast(coordinates.device.type, enabled=False):
            values = self.kernel(coordinates).unflatten(-1, (self.out_channels, self.in_channels))
        values = values.movedim((-2, -1), (0, 1))
        size = self.kernel_size
        filters = values.new_zeros(*values.shape[:-1], size**2).index_copy(-1, self.disk, values)
        return filters.unflatten(-1, (size, size))

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        defaults = dict(stride=1, padding=0, algorithm="auto")
        parts += [f"{name}={getattr(self, name)}" for name in defaults if getattr(self, name) != defaults[name]]
        return ", ".join(parts + ["bias=False"] * (self.bias is None))


class PartialLiftingConv2d(_SampledConv2d):
    """Lifts an image to sampled elements of the group (paper 4, Eq. 3); never partial, as the plane is closed under it:

        y[o, u, p] = bias[o] + Σ_c Σ_t ψ_{oc}(u⁻¹t) · x[c, p + t],     u from the whole group

    with ψ a small network (KernelNetwork).  The elements are sampled at each call; see ElementDistribution.

    Args:
        in_channels: channels of the image.
        out_channels: fields of the result.
        kernel_size: k, not 2; the taps lie at −1 … 1 on both axes, and those outside the unit disk are zero.
        group: "SE2", "E2", "D1" (the mirror alone) or "T2" (translations alone).
        elements: N, the rotations sampled; E2 has as many mirrored elements besides.  1 for "D1" and "T2".
        stride, padding: in pixels.
        bias: whether to add one learned number a field.
        algorithm: see gconv_ext.functional; "irrep" saves multiplications where the elements contain a point group.
        kernel, hidden, omega0: kind of ψ ("siren", "relu", "leaky_relu", "swish"), its hidden units, ω₀ of a SIREN.

    Shapes: x [B, in_channels, H, W] -> SampledMap with features [B, out_channels, N, H', W'].
    Parameters: kernel.*, bias [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, group: str = "SE2", elements: int = 8,
        stride: int = 1, padding: int = 0, bias: bool = True, algorithm: str = "auto", kernel: str = "siren",
        hidden: int = 32, omega0: float = 10.0, device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, 2, stride, padding, bias, algorithm, kernel, hidden, omega0, device,
            dtype,
        )  # fmt: skip
        self.distribution = ElementDistribution(group, elements, learned=False, device=device, dtype=dtype)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> SampledMap:
        checks.check_tensor("x", x, 4, "[B, C_in, H, W]")
        elements = self.distribution(generator)
        group = common_point_group(elements)
        order = coset_order(elements, group)
        first = order[:: as_group(group).order]  # one element of each coset; the point group moves it to the others
        bank = self._render(moved_back(self.taps, elements.turns[first], elements.signs[first])).transpose(1, 2)
        y = functional.lifting_conv2d(
            x, bank.flatten(0, 1), None if self.bias is None else self.bias.repeat_interleave(len(first)),
            group=group, stride=self.stride, padding=self.padding, algorithm=self.algorithm,
        )  # fmt: skip
        return SampledMap(_listed(y.unflatten(1, (self.out_channels, len(first))).flatten(2, 3), order), elements)


class _SampledGroupConv2d(_SampledConv2d):
    """A convolution from one sampled set of elements to another."""

    mirrors: bool

    def _check(self, feature_map: SampledMap) -> None:
        if not isinstance(feature_map, SampledMap):
            raise TypeError(f"feature_map must be a SampledMap (features, elements), got {type(feature_map).__name__}")
        x, elements = feature_map
        checks.check_tensor("features", x, 5, "[B, C_in, N, H, W]")
        if x.shape[1] != self.in_channels or x.shape[2] != len(elements.turns):
            raise ValueError(
                f"features must have C_in = {self.in_channels} fields and N = {len(elements.turns)} elements in "
                f"[B, C_in, N, H, W], got shape {tuple(x.shape)}"
            )
        if elements.mirrors and not self.mirrors:
            raise ValueError("elements must have no mirror for a layer over a group without mirrors, got mirrored ones")

    def _convolve(self, feature_map: SampledMap, elements: Elements) -> SampledMap:
        x, others = feature_map
        if others.weights is None:
            bank_scale = 1 / len(others.turns)
        else:
            x, bank_scale = x * (others.weights / others.weights.sum())[:, None, None], 1
        group = common_point_group(elements, others)
        order, other_order = coset_order(elements, group), coset_order(others, group)
        size = as_group(group).order
        first = order[::size]  # one output element of each coset; the point group moves it to the others
        bank = self._render(self._coordinates(elements.turns[first], elements.signs[first], others)[:, other_order])
        bank = (bank_scale * bank).transpose(1, 2).unflatten(3, (-1, size)).flatten(2, 3).flatten(0, 1)
        y = functional.group_conv2d(
            _reordered(x, other_order).unflatten(2, (-1, size)).flatten(1, 2), bank,
            None if self.bias is None else self.bias.repeat_interleave(len(first)),
            group=group, stride=self.stride, padding=self.padding, algorithm=self.algorithm,
        )  # fmt: skip
        return SampledMap(_listed(y.unflatten(1, (self.out_channels, len(first))).flatten(2, 3), order), elements)

    def _coordinates(self, turns: Tensor, signs: Tensor, others: Elements) -> Tensor:
        raise NotImplementedError


class PartialGroupConv2d(_SampledGroupConv2d):
    """Partial group convolution (paper 4, Eq. 6), estimated with sampled elements (Eq. 4):

        y[o, u, p] = bias[o] + 1/N_in Σ_c Σ_v Σ_t ψ_{oc}(u⁻¹v, u⁻¹t) · x[c, v, p + t]

    with ψ a small network (KernelNetwork) of the relative element and the tap.  The output elements u are sampled at
    each call from the layer's distribution (ElementDistribution); v are those that the input was sampled at, less what
    a draw did not keep.  With partial=False u comes from the whole group and the layer is equivariant, in expectation
    to the whole group, and exactly to the point group that the elements contain: C4 (SE2) or D4 (E2) where N is a
    multiple of 4.

    Args:
        group: "SE2", "E2", "D1" (the mirror alone) or "T2"; that of the input.
        elements: N, the most rotations sampled; E2 has as many mirrored elements besides.
        partial: whether the layer learns which subset of the group to sample from.
        rotations, monotonic: see ElementDistribution.
        The others as for PartialLiftingConv2d.

    Shapes: SampledMap with features [B, in_channels, N_in, H, W] -> SampledMap with features
    [B, out_channels, N_out, H', W'].
    Parameters: kernel.*, bias [out_channels], distribution.*; those of the distributions want a learning rate of their
    own (paper 4 takes a tenth; nn.distribution_parameters lists them).

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, group: str = "SE2", elements: int = 8,
        partial: bool = True, stride: int = 1, padding: int = 0, bias: bool = True, algorithm: str = "auto",
        kernel: str = "siren", hidden: int = 32, omega0: float = 10.0, rotations: str = "uniform",
        monotonic: bool = False, device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ):  # fmt: skip
        mirrors = GROUPS[check_group(group)][1]
        super().__init__(
            in_channels, out_channels, kernel_size, 3 + mirrors, stride, padding, bias, algorithm, kernel, hidden,
            omega0, device, dtype,
        )  # fmt: skip
        self.mirrors = mirrors
        self.distribution = ElementDistribution(
            group, elements, partial, rotations, monotonic, device=device, dtype=dtype
        )

    def forward(self, feature_map: SampledMap, generator: torch.Generator | None = None) -> SampledMap:
        self._check(feature_map)
        return self._convolve(feature_map, self.distribution(generator, feature_map.elements))

    def _coordinates(self, turns: Tensor, signs: Tensor, others: Elements) -> Tensor:
        relative = relative_coordinates(turns, signs, others)[..., : 1 + self.mirrors]
        taps = moved_back(self.taps, turns, signs)
        shape = (len(turns), len(others.turns), len(self.taps), -1)
        return torch.cat([taps[:, None].expand(*shape), relative[:, :, None].expand(*shape)], dim=-1)


class PartialPointwiseConv2d(_SampledGroupConv2d):
    """Pointwise group convolution: one tap, mixing fields and elements; brings a map to given elements, as a shortcut
    must.

        y[o, u, p] = bias[o] + 1/N_in Σ_c Σ_v ψ_{oc}(u⁻¹v) · x[c, v, p]

    Args: as for PartialGroupConv2d.

    Shapes: SampledMap with features [B, in_channels, N_in, H, W], elements -> SampledMap with features
    [B, out_channels, N_out, H, W] at these elements.
    """

    def __init__(
        self, in_channels: int, out_channels: int, group: str = "SE2", bias: bool = True, algorithm: str = "auto",
        kernel: str = "siren", hidden: int = 32, omega0: float = 10.0, device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):  # fmt: skip
        mirrors = GROUPS[check_group(group)][1]
        super().__init__(
            in_channels, out_channels, 1, 1 + mirrors, 1, 0, bias, algorithm, kernel, hidden, omega0, device, dtype
        )  # fmt: skip
        self.mirrors = mirrors

    def forward(self, feature_map: SampledMap, elements: Elements) -> SampledMap:
        self._check(feature_map)
        return self._convolve(feature_map, elements)

    def _coordinates(self, turns: Tensor, signs: Tensor, others: Elements) -> Tensor:
        return relative_coordinates(turns, signs, others)[:, :, None, : 1 + self.mirrors]


def _reordered(x: Tensor, order: list[int]) -> Tensor:
    """x[:, :, order], without a copy where the order is the same."""
    return x if order == list(range(x.shape[2])) else x[:, :, order]


def _listed(y: Tensor, order: list[int]) -> Tensor:
    """Undoes `_reordered`."""
    return _reordered(y, sorted(range(len(order)), key=order.__getitem__))
