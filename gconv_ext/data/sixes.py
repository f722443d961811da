"""Paper 4's toy tasks, MNIST6-180 and MNIST6-M: sixes, and the same sixes turned by half a turn or mirrored."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..groups import PointGroup, transform_image
from .digits import Digits

# Name -> the point group whose last element makes the second half of the data.
SIX_TASKS = {"180": "C2", "M": "D1"}


def sixes(digits: Digits, split: str, task: str, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Every six of a split twice: as it is, label 0, and moved, label 1.

    A network that is invariant under the move gets exactly one of each pair right.  The paper's text turns the sixes of
    MNIST6-180 on the whole circle; its published data, which we follow, has the two orientations alone.

    Args:
        digits: from load_digits.
        split: "train", "validation" or "test".
        task: "180", turned by half a turn, or "M", mirrored left to right.
        limit: the sixes among the first so many digits of the split; None for all.

    Returns:
        float32 images [2n, 1, 28, 28] in [0, 1], first those as they are, and int64 labels [2n].

    Raises:
        ValueError: unknown task.
    """
    if task not in SIX_TASKS:
        raise ValueError(f"task must be one of {', '.join(map(repr, SIX_TASKS))}, got {task!r}")
    images, labels = (array[:limit] for array in digits.splits[split])
    upright = torch.from_numpy(images[labels == 6].astype(np.float32) / 255).unsqueeze(1)
    moved = transform_image(upright, PointGroup(SIX_TASKS[task]), 1)
    return torch.cat([upright, moved]), torch.arange(2).repeat_interleave(len(upright))
