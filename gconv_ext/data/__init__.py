"""Digits, their idx files, paper 1's rotations and noise, paper 3's rotations, and paper 4's sixes."""

from .digits import DATASETS, SPLITS, Digits, load_digits
from .idx import read_idx
from .noise import NOISES, noise_map, noised, noisy_split, quarter_turned
from .rotation import CircleCrop, biased_angles, rotate, uniform_angles
from .sixes import SIX_TASKS, sixes

__all__ = [
    "DATASETS", "NOISES", "SIX_TASKS", "SPLITS", "CircleCrop", "Digits", "biased_angles", "load_digits", "noise_map",
    "noised", "noisy_split", "quarter_turned", "read_idx", "rotate", "sixes", "uniform_angles",
]  # fmt: skip
