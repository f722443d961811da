"""Non-stationary convolutions with continuous filters (paper 2): lifting and group convolution over T(2) and SE(2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import algorithms, checks, contraction, functional
from .fourier_features import FourierFeatures, NonstationaryKernel

GROUPS = ("T2", "SE2")
SOFT = ("rotation", "translation", "both", None)


def check_soft_group(group: str, elements: int | None, soft: str | None) -> int:
    """How many elements of rotation the group has, once group, elements and soft are known to go together."""
    if group not in GROUPS:
        raise ValueError(f"group must be 'T2' or 'SE2', got {group!r}")
    if soft not in SOFT:
        raise ValueError(f"soft must be 'rotation', 'translation', 'both' or None, got {soft!r}")
    if elements is None:
        elements = 1 if group == "T2" else 4
    checks.check_positive("elements", elements)
    if group == "T2" and elements != 1:
        raise ValueError(f"elements must be 1 for group='T2', which has no rotation, got {elements}")
    if group == "T2" and soft in ("rotation", "both"):
        raise ValueError(f"soft must be 'translation' or None for group='T2', which has no rotation, got {soft!r}")
    return elements


class _NonstationaryConv2d(nn.Module):
    """What the two convolutions share: coordinates, the kernel, and the two ways to convolve with it."""

    _lifting: bool
    relative: Tensor
    soft_axes: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, group: str = "SE2", elements: int | None = None,
        soft: str | None = "rotation", stride: int = 1, padding: int = 0, bias: bool = True, hidden_channels: int = 32,
        num_features: int = 16, frequency: Sequence[float] | float = 1.0, soft_frequency: float = 0.5,
        learn_frequency: bool = False, learn_soft_frequency: bool = False, algorithm: str = "auto",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ):  # fmt: skip
        super().__init__()
        self.elements, self.group, self.soft = check_soft_group(group, elements, soft), group, soft
        self.in_channels = checks.check_positive("in_channels", in_channels)
        self.out_channels = checks.check_positive("out_channels", out_channels)
        self.kernel_size = checks.check_positive("kernel_size", kernel_size)
        self.stride = checks.check_positive("stride", stride)
        if isinstance(padding, bool) or not isinstance(padding, int):
            raise TypeError(f"padding must be an int, got {type(padding).__name__}")
        if padding < 0:
            raise ValueError(f"padding must be at least 0, got {padding}")
        self.padding = padding
        checks.check_positive("hidden_channels", hidden_channels)
        checks.check_positive("num_features", num_features)
        self.soft_translation = soft in ("translation", "both")
        known = algorithms.CONTRACTION_ALGORITHMS if self.soft_translation else algorithms.ALGORITHMS
        if algorithm not in known:
            raise ValueError(
                f"algorithm must be one of {', '.join(map(repr, known))} for soft={soft!r}, got {algorithm!r}"
            )
        self.algorithm = algorithm

        in_elements = 1 if self._lifting else self.elements
        turns = group == "SE2"
        options: dict[str, Any] = dict(device=device, dtype=dtype)
        soft_axes = torch.tensor([self.soft_translation] * 2 + [soft in ("rotation", "both")] * turns, device=device)
        stationary = FourierFeatures(
            2 + (turns and not self._lifting), num_features, frequency, learn_frequency, **options
        )
        absolute = FourierFeatures(
            len(soft_axes), num_features, soft_frequency * soft_axes, learn_soft_frequency, **options
        )
        self.kernel = NonstationaryKernel(
            in_channels,
            out_channels,
            stationary,
            absolute,
            hidden_channels,
            in_channels * in_elements * kernel_size**2,
            **options,
        )
        self.bias = nn.Parameter(torch.zeros(out_channels, **options)) if bias else None
        relative = self._relative_coordinates(in_elements, turns)[..., : stationary.frequency.shape[0]]
        self.register_buffer("relative", relative.to(self.kernel.weight), persistent=False)
        self.register_buffer("soft_axes", soft_axes.to(self.kernel.weight), persistent=False)

    def _relative_coordinates(self, in_elements: int, turns: bool) -> Tensor:
        """Of v⁻¹u for an output element θ_i at 0, an input element θ_j and a tap t: [I, M, k², 3], R_j⁻¹(−t) in kernel
        halves and θ_i − θ_j in half turns.  A lifting convolution has no θ_j, and R_i⁻¹(−t)."""
        taps = (torch.arange(self.kernel_size) * 2 - (self.kernel_size - 1)) / max(self.kernel_size - 1, 1)
        offsets = -torch.cartesian_prod(taps, taps).double()
        outputs, inputs = torch.meshgrid(torch.arange(self.elements), torch.arange(in_elements), indexing="ij")
        angles = (outputs if self._lifting else inputs).double() * (2 * math.pi / self.elements)
        cos, sin = angles.cos()[..., None], angles.sin()[..., None]
        row, column = offsets.unbind(1)
        turn = self._half_turns(outputs - inputs)[..., None].expand(-1, -1, len(offsets))
        return torch.stack([cos * row + sin * column, cos * column - sin * row, turn], -1)

    def _half_turns(self, index: Tensor) -> Tensor:
        """The principal logarithm of the index-th rotation, in (−1, 1]."""
        index = index % self.elements
        return torch.where(2 * index > self.elements, index - self.elements, index).double() * 2 / self.elements

    def _absolute_coordinates(self, height: int, width: int) -> Tensor:
        """Of v, on the map with its padding: [H + 2p, W + 2p, N, 3], in halves of the map's longer side and in half
        turns; 0 where the kernel must not see them."""
        like = self.relative
        rows, columns = (
            (2 * torch.arange(-self.padding, n + self.padding, device=like.device) - (n - 1)).to(like)
            / max(height - 1, width - 1, 1)
            for n in (height, width)
        )
        turns = self._half_turns(torch.arange(self.elements, device=like.device)).to(like)
        grid = torch.stack(torch.meshgrid(rows, columns, turns, indexing="ij"), -1)
        return grid[..., : len(self.soft_axes)] * self.soft_axes

    def soft_frequency_penalty(self) -> Tensor:
        """‖ω'‖², which the loss holds against learned relaxation (paper 2, §5.3, without its factor λ); 0 exactly
        when the layer is equivariant."""
        return self.kernel.absolute.frequency.square().sum()

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        if self.soft_translation:
            return self._contract(x.unsqueeze(2) if self._lifting else x)
        return self._convolve(x)

    def hidden_features(self, height: int, width: int) -> Tensor:
        """Those of the kernel at every output pixel, element and tap, [H', W', I, M, k², hidden], for a map of height
        x width. Without soft translation every pixel's are the same."""
        with torch.autocast(self.relative.device.type, enabled=False):
            absolute = self.kernel.absolute_part(self._absolute_coordinates(height, width))
            absolute = absolute.unfold(0, self.kernel_size, self.stride).unfold(1, self.kernel_size, self.stride)
            absolute = absolute.permute(0, 1, 2, 4, 5, 3).flatten(3, 4).unsqueeze(3 if self._lifting else 2)
            return self.kernel.hidden(self.kernel.stationary_part(self.relative), absolute)

    def filter(self, outputs: int) -> Tensor:
        """Where the translation is strict: the one filter of all pixels, of the first so many output elements, from the
        M input elements, [C_out, outputs, C_in, M, k, k]."""
        with torch.autocast(self.relative.device.type, enabled=False):
            absolute = self.kernel.absolute_part(
                self._absolute_coordinates(1, 1)[self.padding, self.padding, :, None]
            )  # [N, 1, D]
            stationary = self.kernel.stationary_part(self.relative[:outputs])
            hidden = self.kernel.hidden(stationary, absolute[:outputs, None] if self._lifting else absolute)
            filter = torch.einsum("imth,och->oicmt", hidden, self.kernel.weight)
        return filter.unflatten(-1, (self.kernel_size,) * 2)

    def _check(self, x: Tensor) -> None:
        lifting = self._lifting
        layout = "[B, C_in, H, W]" if lifting else "[B, C_in, N, H, W]"
        checks.check_tensor("x", x, 4 if lifting else 5, layout)
        if x.shape[1] != self.in_channels:
            raise ValueError(f"x must have C_in = {self.in_channels} channels in {layout}, got shape {tuple(x.shape)}")
        if not lifting and x.shape[2] != self.elements:
            raise ValueError(f"x must have N = {self.elements} elements in {layout}, got shape {tuple(x.shape)}")
        checks.check_like("x", x, "weight", self.kernel.weight, autocast_casts=True)
        if min(x.shape[-2:]) + 2 * self.padding < self.kernel_size:
            raise ValueError(
                f"x is too small: {tuple(x.shape[-2:])} pixels with padding {self.padding}, "
                f"and the kernel needs {self.kernel_size}"
            )

    def _contract(self, x: Tensor) -> Tensor:
        """Soft translation: hidden features for every pixel, and no filter."""
        hidden = self.hidden_features(*x.shape[-2:])
        y = contraction.contract(
            x, hidden, self.kernel.weight, stride=self.stride, padding=self.padding, algorithm=self.algorithm
        )
        return y if self.bias is None else y + self.bias[:, None, None, None].to(y.dtype)

    def _convolve(self, x: Tensor) -> Tensor:
        """Soft in the rotation, or strict: one filter for all pixels.  A strict filter over 4m angles is one of C4
        with m times the fields, element m·a + b being quarter turn a of field b; a soft one has no such structure,
        and is dense."""
        group = "C4" if self.soft is None and self.elements % 4 == 0 else "C1"
        order = 4 if group == "C4" else 1
        per_field = self.elements // order
        filter = self.filter(per_field)
        options: dict[str, Any] = dict(
            group=group, stride=self.stride, padding=self.padding, algorithm=self.algorithm
        )
        bias = None if self.bias is None else self.bias.repeat_interleave(per_field)
        if self._lifting:
            y = functional.lifting_conv2d(x, filter[:, :, :, 0].flatten(0, 1), bias, **options)
        else:
            filter = filter.unflatten(3, (order, per_field)).transpose(3, 4).flatten(2, 3).flatten(0, 1)
            x = x.unflatten(2, (order, per_field)).transpose(2, 3).flatten(1, 2)
            y = functional.group_conv2d(x, filter, bias, **options)
        return y.unflatten(1, (self.out_channels, per_field)).transpose(2, 3).flatten(2, 3)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, group={self.group!r}"]
        parts += [f"elements={self.elements}, soft={self.soft!r}"]
        defaults = dict(stride=1, padding=0, algorithm="auto")
        parts += [
            f"{name}={getattr(self, name)}" for name, default in defaults.items() if getattr(self, name) != default
        ]
        return ", ".join(parts + ["bias=False"] * (self.bias is None))


class NonstationaryLiftingConv2d(_NonstationaryConv2d):
    """Non-stationary lifting convolution with a continuous filter (paper 2, Eqs. 2 and 7), over T(2) or over SE(2)
    with N angles:

        y[o, i, p] = bias[o] + Σ_c Σ_t k_oc(R_i⁻¹(−t), (p + t, θ_i)) · x[c, p + t]

    k(a, b) = NN([γ_ω(a), γ_ω'(b)]) on random Fourier features (NonstationaryKernel).  ω' = 0 makes it a strict lifting
    convolution.  The paper leaves open how lifting is softened; here the absolute angle is the output's, since an
    image has none.  Distances t are in halves of the kernel and positions in halves of the map's longer side, from
    its centre; angles in half turns, in (−1, 1].

    Args:
        in_channels: channels of the image.
        out_channels: fields of the result.
        kernel_size: k.
        group: "T2" or "SE2".
        elements: N, 1 for "T2"; 4 for "SE2" unless told otherwise.
        soft: what ω' relaxes: "rotation", "translation", "both" or None; translation alone for "T2".  With soft
            translation the filter differs at every pixel, and is never materialised.
        stride, padding: of rows and columns alike; beyond the map x is 0.
        bias: whether to add one learned number for each field.
        hidden_channels: width of NN.
        num_features: D of the Fourier features.
        frequency: ω, one number for every coordinate or one for each; learned with learn_frequency.
        soft_frequency: ω' of the coordinates that are soft; learned with learn_soft_frequency.  The others are 0.
        algorithm: with soft translation "auto", "contract", "triton_contract" or "reference"
            (gconv_ext.contraction.contract); else as in gconv_ext.functional, to which the rendered filter goes.

    Shapes: x [B, in_channels, H, W] -> [B, out_channels, N, H', W'].
    Parameters: kernel.*, see NonstationaryKernel; bias [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    _lifting = True


class NonstationaryGroupConv2d(_NonstationaryConv2d):
    """Non-stationary group convolution with a continuous filter (paper 2, Eqs. 2 and 7), over T(2) or over SE(2) with
    N angles:

        y[o, i, p] = bias[o] + Σ_c Σ_j Σ_t k_oc((R_j⁻¹(−t), θ_i − θ_j), (p + t, θ_j)) · x[c, j, p + t]

    which is h(u) = Σ_v k(v⁻¹u, v) f(v) at u = (p, θ_i) and v = (p + t, θ_j), in the coordinates of R² ⋊ SO(2).  ω' =
    0 makes it a strict group convolution, ω = ω' = 0 a pooling.

    Args: as for NonstationaryLiftingConv2d; channels count fields.

    Shapes: x [B, in_channels, N, H, W] -> [B, out_channels, N, H', W'].
    Parameters: kernel.*, see NonstationaryKernel; bias [out_channels].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    _lifting = False
