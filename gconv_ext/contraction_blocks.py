"""The ops contract_fprop and contract_backward (contraction.py) in plain PyTorch, for every device and dtype without
a kernel of
its own: blocks of output pixels, so that z is never whole."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops

_BLOCK_BYTES = {"cpu": 1 << 20}  # of z: a second-level cache
_OTHER_BLOCK_BYTES = 64 << 20  # enough to fill a GPU


class _Blocks:
    """The operands in rows of pixels, and the blocks of output pixels."""

    def __init__(self, x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int):
        self.hidden, self.stride, self.padding = hidden, stride, padding
        self.size = math.isqrt(hidden.shape[4])
        self.x = F.pad(x.permute(3, 4, 2, 0, 1), (0,) * 6 + (padding,) * 4).contiguous()  # [rows, columns, M, B, C]
        self.weight = weight.permute(1, 2, 0).reshape(-1, weight.shape[0])  # [C D, O]

    def windows(self, map: Tensor) -> Tensor:
        """[rows, columns, M, B, C] -> [H', W', M, k, k, B C], a view."""
        taps = map.flatten(3).unfold(0, self.size, self.stride).unfold(1, self.size, self.stride)
        return taps.permute(0, 1, 2, 4, 5, 3)

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        height, width = self.hidden.shape[:2]
        budget = _BLOCK_BYTES.get(self.x.device.type, _OTHER_BLOCK_BYTES)
        pixels = max(1, budget // max(1, self.x[0, 0, 0].numel() * self.hidden.shape[5] * self.x.element_size()))
        columns = min(width, pixels)
        rows = max(1, pixels // width)
        for row in range(0, height, rows):
            for column in range(0, width, columns):
                yield slice(row, row + rows), slice(column, column + columns)

    def hidden_of(self, block: tuple[slice, slice], i: int) -> Tensor:
        """[pixels, M k², D]."""
        features = self.hidden[(*block, i)]
        return features.reshape(-1, features.shape[2] * features.shape[3], features.shape[4])


def _fprop(x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    blocks, batch, fields = _Blocks(x, hidden, weight, stride, padding), x.shape[0], weight.shape[0]
    taps = blocks.windows(blocks.x)
    y = x.new_empty(*hidden.shape[:3], batch, fields)
    for block in blocks:
        tap_rows = taps[block].flatten(0, 1).flatten(1, 3).transpose(1, 2)  # [pixels, B C, M k²]
        for i in range(hidden.shape[2]):
            z = torch.bmm(tap_rows, blocks.hidden_of(block, i)).view(-1, blocks.weight.shape[0])
            y[(*block, i)] = torch.mm(z, blocks.weight).view(y[(*block, i)].shape)
    return y.permute(3, 4, 2, 0, 1).contiguous()


def _backward(
    dy: Tensor, x: Tensor, hidden: Tensor, weight: Tensor, stride: int, padding: int, output_mask: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    need_x, need_hidden, need_weight = output_mask
    blocks = _Blocks(x, hidden, weight, stride, padding)
    batch, channels = x.shape[:2]
    taps, rows_of_dy = blocks.windows(blocks.x), dy.permute(3, 4, 2, 0, 1)
    dx = torch.zeros_like(blocks.x) if need_x else x.new_empty(0)
    dhidden = hidden.new_empty(hidden.shape if need_hidden else 0)
    # Sums over all pixels of all images: in float32 at least.
    dweight = (
        torch.zeros_like(blocks.weight, dtype=torch.promote_types(x.dtype, torch.float32))
        if need_weight
        else x.new_empty(0)
    )
    for block in blocks:
        tap_rows = taps[block].flatten(0, 1).flatten(1, 3)  # [pixels, M k², B C]
        for i in range(hidden.shape[2]):
            features = blocks.hidden_of(block, i)
            dy_rows = rows_of_dy[(*block, i)].reshape(-1, weight.shape[0])
            if need_weight:
                z = torch.bmm(tap_rows.transpose(1, 2), features).view(-1, blocks.weight.shape[0])
                dweight += torch.mm(z.t(), dy_rows)
            if not (need_x or need_hidden):
                continue
            dz = torch.mm(dy_rows, blocks.weight.t()).view(features.shape[0], batch * channels, weight.shape[2])
            if need_hidden:
                dhidden[(*block, i)] = torch.bmm(tap_rows, dz).view(dhidden[(*block, i)].shape)
            if need_x:
                _add_to_windows(blocks, dx, block, torch.bmm(features, dz.transpose(1, 2)))
    if need_x:
        dx = dx[padding : padding + x.shape[3], padding : padding + x.shape[4]].permute(3, 4, 2, 0, 1).contiguous()
    if need_weight:
        dweight = dweight.view(channels, weight.shape[2], weight.shape[0]).permute(2, 0, 1).to(x.dtype).contiguous()
    return dx, dhidden, dweight


def _add_to_windows(blocks: _Blocks, dx: Tensor, block: tuple[slice, slice], terms: Tensor) -> None:
    """Adds [pixels, M k², B C] to the numbers of dx that these taps read; one tap at a time, since windows overlap."""
    taps = blocks.windows(dx)[block]
    terms = terms.view(taps.shape)
    for row in range(blocks.size):
        for column in range(blocks.size):
            taps[:, :, :, row, column] += terms[:, :, :, row, column]


SCHEMAS = {  # as csrc/ops.cpp has them
    "contract_fprop": "(Tensor x, Tensor hidden, Tensor weight, int stride, int padding) -> Tensor",
    "contract_backward": "(Tensor dy, Tensor x, Tensor hidden, Tensor weight, int stride, int padding, "
    "bool[3] output_mask) "
    "-> (Tensor grad_x, Tensor grad_hidden, Tensor grad_weight)",
}


def _define() -> torch.library.Library:
    """Registers both, behind the kernels of devices that have one."""
    library = torch.library.Library("gconv_ext", "FRAGMENT")
    for (name, schema), function in zip(SCHEMAS.items(), (_fprop, _backward)):
        if not hasattr(torch.ops.gconv_ext, name):
            library.define(name + schema)
            ops.register_rules(name)
        library.impl(name, function, "CompositeExplicitAutograd")
    return library


_library = _define()  # the ops live as long as this does
