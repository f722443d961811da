"""How feature maps [B, C, |P|, H, W] lie in memory.  Three formats, from the slowest axis to the fastest:

    rows         B, C, |P|, H, W    torch.contiguous_format
    planes last  B, H, W, C, |P|    torch.channels_last of the C · |P| planes, as PyTorch's convolution has them
    fields last  B, |P|, H, W, C    torch.channels_last_3d: of one element, the numbers that a GPU's kernels multiply together

Layers keep the format of what they get.  Of an image in torch.channels_last our own convolutions make a map with the planes
last on the CPU, and with the fields last elsewhere, where they do so of a map with the planes last too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Format = Literal["rows", "planes last", "fields last"]


def lies_in_rows(map: Tensor) -> bool:
    """Whether a map [B, C, (|P|,) H, W] lies as rows of pixels, not as pixels of numbers, as csrc/irrep_checks.h sees it."""
    field, column = map.stride(1), map.stride(-1)
    return field == 0 or field > column or (field == column and (map.shape[1] > 1 or map.shape[-1] * map.shape[-2] == 1))


def format_of(map: Tensor) -> Format:
    """That of a map [B, C, |P|, H, W]."""
    if lies_in_rows(map):
        return "rows"
    return "fields last" if map.stride(2) > map.stride(-1) else "planes last"


def result_format(like: Tensor) -> Format:
    """Of what our own convolutions make of a map or an image, as csrc/irrep_checks.h says."""
    if lies_in_rows(like):
        return "rows"
    if like.device.type != "cpu":
        return "fields last"
    return "planes last" if like.dim() == 4 else format_of(like)


def empty_map_like(like: Tensor, fields: int, elements: int, height: int, width: int) -> Tensor:
    """A new map in the memory format of our own convolutions' result."""
    sizes = (like.shape[0], fields, elements, height, width)
    format = result_format(like)
    if format == "rows":
        return like.new_empty(sizes)
    if format == "fields last":
        plane = height * width * fields
        return like.new_empty_strided(sizes, (elements * plane, 1, plane, width * fields, fields))
    planes = fields * elements
    return like.new_empty_strided(sizes, (height * width * planes, elements, 1, width * planes, planes))


def in_format(map: Tensor, format: Format) -> Tensor:
    """The map, or a copy of it, in that format."""
    if format_of(map) == format:
        return map
    if format == "rows":
        return map.contiguous()
    # permuted, because torch.vmap knows no memory formats
    if format == "fields last":
        return map.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    return map.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)


def planes_of(map: Tensor) -> Tensor:
    """[B, C, |P|, H, W] -> [B, C · |P|, H, W] as PyTorch's convolution takes it: in torch.channels_last, unless the map lies in
    rows.  A copy where the fields are last."""
    return in_format(map, "planes last" if format_of(map) == "fields last" else format_of(map)).flatten(1, 2)


def by_planes(function: Callable[[Tensor], Tensor], map: Tensor) -> Tensor:
    """What a function of planes [N, C', H, W] -> [N, C', H', W'], which treats each for itself, makes of the map: [B, C, |P|, H',
    W'], in its format if the function keeps that of the planes.  No copy."""
    batch, fields, elements = map.shape[:3]
    if format_of(map) == "fields last":
        return function(map.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, elements)).transpose(1, 2)
    return function(map.flatten(1, 2)).unflatten(1, (fields, elements))


def for_network(image: Tensor, on_cpu: torch.memory_format) -> Tensor:
    """A copy of an image [B, C, H, W] in the memory format that a network's layers compute fastest in: `on_cpu` on the CPU,
    torch.channels_last elsewhere."""
    # clone, because contiguous() leaves the strides of an image with one channel as they are.
    return image.clone(memory_format=on_cpu if image.device.type == "cpu" else torch.channels_last)
