"""Digits, their idx files, and paper 1's rotations and noise."""

from .digits import DATASETS, SPLITS, Digits, load_digits
from .idx import read_idx
from .noise import NOISES, noise_map, noised, noisy_split, quarter_turned

__all__ = [
    "DATASETS", "NOISES", "SPLITS", "Digits", "load_digits", "noise_map", "noised", "noisy_split", "quarter_turned", "read_idx",
]  # fmt: skip
