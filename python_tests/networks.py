"""A small network of the layers that people train with."""

import torch

from gconv_ext import nn


def small_network(algorithm="auto", norm=True):
    """From [B, 1, H, W] to [B, 3]; the same parameters at each call, their symmetry broken as by training."""
    torch.manual_seed(1)
    network = torch.nn.Sequential(
        nn.RelaxedLiftingConv2d(1, 3, 3, padding=1, num_filter_banks=2, algorithm=algorithm),
        nn.GroupBatchNorm2d(3) if norm else torch.nn.Identity(), torch.nn.ReLU(), nn.SpatialMaxPool2d(2),
        nn.GroupConv2d(3, 4, 3, padding=1, algorithm=algorithm, activation="relu"),
        nn.RelaxedGroupConv2d(4, 4, 3, num_filter_banks=2, relax_on="input", algorithm=algorithm),
        nn.GroupPool(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3),
    )  # fmt: skip
    for layer in network:
        if hasattr(layer, "relaxed_weight"):
            torch.nn.init.normal_(layer.relaxed_weight)
    return network
