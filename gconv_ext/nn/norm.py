"""Normalisation and dropout that treat the |P| numbers of a field alike, and so keep equivariance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import batch_norm
from ..checks import check_activation, check_positive, check_tensor
from ..memory_format import lies_in_rows
from .sums import element_sum, plane_sum, widened

_LAYOUT = "[B, C, |P|, H, W]"


class GroupBatchNorm2d(nn.BatchNorm3d):
    """Batch normalisation per field: statistics over batch, elements and pixels, one scale and shift a field.

        y[b, c, h, p] = (x[b, c, h, p] − mean_c) / sqrt(var_c + eps) · weight[c] + bias[c]

    Exact to the bit in eval mode; in training, statistics are summed in an order that a turn changes.  The memory format of x
    stays, but for planes in torch.channels_last on the CPU.  There, in float32 and float64, training, and inference without
    gradients, go through kernels of this package, everything else through PyTorch's.

    Args: num_features counts fields; the others as for torch.nn.BatchNorm2d; activation: None, or "relu" to return
        max(y, 0), in the same pass where there are kernels.

    Shapes: [B, C, |P|, H, W] -> the same.

    Raises:
        ValueError: another activation; x has another number of dimensions or of fields, or in training one number a field.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: torch.device | str | None = None, dtype: torch.dtype | None = None,
        activation: str | None = None,
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        check_activation(activation)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        y = self._by_kernels(x)
        if y is not None:
            return y
        if lies_in_rows(x):
            # PyTorch rounds otherwise where rows and columns have changed places in memory alone, as in a turned view.
            x = x.contiguous()
        y = super().forward(x)
        return y if self.activation is None else F.relu(y)

    def _by_kernels(self, x: Tensor) -> Tensor | None:
        """None where they do not take x."""
        mean, var = self.running_mean, self.running_var
        in_rows = lies_in_rows(x)
        takes = batch_norm.has_kernels if in_rows else batch_norm.has_planes_kernels
        if not takes(x, self.weight, self.bias, mean, var):
            return None
        relu = self.activation is not None
        if self.training or mean is None or var is None:
            normalise = batch_norm.normalise if in_rows else batch_norm.normalise_planes
            y, mean, var = normalise(x, self.weight, self.bias, self.eps, relu)
            if self.training and self.track_running_stats:
                self._track(mean, var, x.numel() // x.shape[1])
            return y
        if not in_rows:
            return batch_norm.inference_planes(x, self.weight, self.bias, mean, var, self.eps, relu)
        tensors = (x, self.weight, self.bias)
        if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
            return None
        return batch_norm.inference(x, self.weight, self.bias, mean, var, self.eps, relu)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Into the running statistics, as PyTorch does: the variance without bias."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return  # somebody has taken them away
        self.num_batches_tracked.add_(1)
        factor = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), factor)


class _SampleNorm2d(nn.Module):
    """Normalises with the statistics of the sample itself.  Subclasses say over which fields those run."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, affine: bool = True, device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):  # fmt: skip
        super().__init__()
        self.num_features = check_positive("num_features", num_features)
        self.eps, self.affine = eps, affine
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype)) if affine else None

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def _mean(self, x: Tensor) -> Tensor:
        """[B, C, |P|, H, W] -> [B, C or 1], in an order that no element of the group changes."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        if x.shape[1] != self.num_features:
            raise ValueError(f"x must have num_features = {self.num_features} fields, got shape {tuple(x.shape)}")
        centred = widened(x)
        centred = centred - self._mean(centred)[..., None, None, None]
        scale = 1 / torch.sqrt(self._mean(centred.square()) + self.eps)
        if self.weight is not None and self.bias is not None:
            y = centred * (scale * self.weight)[..., None, None, None] + self.bias[:, None, None, None]
        else:
            y = centred * scale[..., None, None, None]
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}"


class GroupInstanceNorm2d(_SampleNorm2d):
    """Instance normalisation per field (Ulyanov et al. 2016): statistics of each sample and field, over elements and
    pixels.

        y[b, c, h, p] = (x[b, c, h, p] − mean_bc) / sqrt(var_bc + eps) · weight[c] + bias[c]

    Exact to the bit, in training too: the statistics of g·x are the same bits.  Without running statistics.

    Args:
        num_features: fields.
        eps: added to the variance.
        affine: whether to learn one scale and shift a field.

    Shapes: [B, C, |P|, H, W] -> the same.  Parameters: weight [C], bias [C].

    Raises:
        TypeError, ValueError: at construction or call, before anything runs, naming the argument.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, affine: bool = False, device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):  # fmt: skip
        super().__init__(num_features, eps, affine, device, dtype)

    def _mean(self, x: Tensor) -> Tensor:
        return plane_sum(element_sum(x)) / (x.shape[2] * x.shape[3] * x.shape[4])


class GroupLayerNorm2d(_SampleNorm2d):
    """Layer normalisation (Ba et al. 2016): statistics of each sample, over fields, elements and pixels;
    torch.nn.GroupNorm with one group of channels.

        y[b, c, h, p] = (x[b, c, h, p] − mean_b) / sqrt(var_b + eps) · weight[c] + bias[c]

    Exact to the bit, in training too: the statistics of g·x are the same bits.

    Args, shapes, errors: as for GroupInstanceNorm2d; affine by default.
    """

    def _mean(self, x: Tensor) -> Tensor:
        return plane_sum(element_sum(x)).sum(1, keepdim=True) / (x.shape[1] * x.shape[2] * x.shape[3] * x.shape[4])


class GroupDropout2d(nn.Module):
    """Drops whole fields, with all their elements and pixels, at probability p (as torch.nn.Dropout2d drops channels).

    Shapes: [B, C, |P|, H, W] -> the same.
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be a probability between 0 and 1, got {p!r}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        return nn.functional.dropout3d(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
