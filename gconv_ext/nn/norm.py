"""Normalisation and dropout that treat the |P| numbers of a field alike, and so keep equivariance."""

from __future__ import annotations

from torch import Tensor, nn

from ..checks import check_tensor

_LAYOUT = "[B, C, |P|, H, W]"


class GroupBatchNorm2d(nn.BatchNorm3d):
    """Batch normalisation per field: statistics over batch, elements and pixels, one scale and shift a field.

        y[b, c, h, p] = (x[b, c, h, p] − mean_c) / sqrt(var_c + eps) · weight[c] + bias[c]

    Args: num_features counts fields; the others as for torch.nn.BatchNorm2d.

    Shapes: [B, C, |P|, H, W] -> the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("x", x, 5, _LAYOUT)
        return super().forward(x)


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
