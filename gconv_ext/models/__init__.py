"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from .cohen_welling import P4CNN, Z2CNN
from .noise import (
    NoiseP4CNN, NoiseP4MCNN, NoisePlainCNN, NoiseRelaxedP4CNN, NoiseRelaxedP4MCNN, NoiseRelaxedTranslationCNN,
)  # fmt: skip
from .nonstationary import NonstationaryCKResNet
from .partial import PartialCKResNet, PartialCNN13
from .resnet import RESNETS, ResNet

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "noise_plain_cnn": NoisePlainCNN,
    "noise_p4_cnn": NoiseP4CNN,
    "noise_p4m_cnn": NoiseP4MCNN,
    "noise_relaxed_p4_cnn": NoiseRelaxedP4CNN,
    "noise_relaxed_p4m_cnn": NoiseRelaxedP4MCNN,
    "noise_relaxed_translation_cnn": NoiseRelaxedTranslationCNN,
    "z2cnn": Z2CNN,
    "p4cnn": P4CNN,
    **RESNETS,
    "partial_ckresnet": PartialCKResNet,
    "partial_cnn13": PartialCNN13,
    "nonstationary_ckresnet": NonstationaryCKResNet,
}

__all__ = [
    "create_model", "list_models", "NoisePlainCNN", "NoiseP4CNN", "NoiseP4MCNN", "NoiseRelaxedP4CNN",
    "NoiseRelaxedP4MCNN", "NoiseRelaxedTranslationCNN", "NonstationaryCKResNet", "P4CNN", "PartialCKResNet",
    "PartialCNN13", "ResNet", "Z2CNN",
]  # fmt: skip


def list_models() -> list[str]:
    """The names that create_model knows."""
    return list(_MODELS)


def create_model(name: str, **options: Any) -> nn.Module:
    """Makes a network, with the paper's settings unless told otherwise.

    Args:
        name: one of list_models().
        **options: `in_channels`, `num_classes`, `width` and `algorithm` for every network; its docstring says more.

    Returns:
        A module from [B, in_channels, H, W] to [B, num_classes].

    Raises:
        ValueError: unknown name, or a value that the network refuses.
        TypeError: an option that the network does not have.
    """
    if not isinstance(name, str):
        raise TypeError(f"create_model: name must be a str, got {type(name).__name__}")
    if name not in _MODELS:
        raise ValueError(f"create_model: unknown model {name!r}; expected one of {', '.join(_MODELS)}")
    known = inspect.signature(_MODELS[name]).parameters
    for option in options:
        if option not in known:
            raise TypeError(f"create_model: {name} has no option {option!r}; it has {', '.join(known)}")
    return _MODELS[name](**options)
