"""Digits, their idx files, the other image sets of the papers and pictures in folders; paper 1's rotations and noise,
paper 3's rotations, and paper 4's sixes."""

from .catalogue import IMAGE_SETS, load_images
from .cifar import load_cifar
from .digits import DATASETS, Digits, load_digits
from .flowers import load_flowers102
from .idx import read_idx
from .image_folder import load_image_folder
from .labelled import SPLITS, ImageFiles, LabelledImages, Pictures
from .noise import NOISES, noise_map, noised, noisy_split, quarter_turned
from .pcam import load_pcam
from .rotation import CircleCrop, biased_angles, rotate, uniform_angles
from .sixes import SIX_TASKS, sixes

__all__ = [
    "DATASETS", "IMAGE_SETS", "NOISES", "SIX_TASKS", "SPLITS", "CircleCrop", "Digits", "ImageFiles", "LabelledImages",
    "Pictures", "biased_angles", "load_cifar", "load_digits", "load_flowers102", "load_image_folder", "load_images",
    "load_pcam", "noise_map", "noised", "noisy_split", "quarter_turned", "read_idx", "rotate", "sixes",
    "uniform_angles",
]  # fmt: skip
