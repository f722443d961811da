"""Trains fast p4m layers on your own pictures, a folder of them for each class, in a plain PyTorch loop.

    python examples/train_images.py --data-dir pictures [--size 64] [--epochs 20] [--group p4]
"""

import argparse

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from gconv_ext import equivariance_error, exactness
from gconv_ext import nn as gnn
from gconv_ext.data import load_image_folder


def stage(conv):
    return torch.nn.Sequential(conv, gnn.GroupBatchNorm2d(conv.out_channels), torch.nn.ReLU(), gnn.SpatialMaxPool2d(2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="holds CLASS/…, or train/CLASS/…, val/CLASS/…, test/CLASS/…")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side; the nearest exact size is taken")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--group", default="p4m", help="p4 where a mirror image can be of another class")
    options = parser.parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = dict(kernel_size=3, padding=1, group=options.group)
    layers = gnn.LiftingConv2d(3, 8, **config), gnn.GroupConv2d(8, 16, **config), gnn.GroupConv2d(16, 32, **config)
    features = torch.nn.Sequential(*map(stage, layers), gnn.GroupGlobalPool("max"))
    size = exactness(features, options.size).nearest_sizes[-1]  # at others, pooling drops pixels at one edge
    splits = load_image_folder(options.data_dir, size).splits
    model = torch.nn.Sequential(features, torch.nn.Linear(32, 1 + max(splits["train"].labels))).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

    def batches(split):
        for images, labels in DataLoader(splits[split], 32, shuffle=split == "train", num_workers=2):
            yield images.to(device) / 255, labels.to(device)

    @torch.no_grad()
    def accuracy(split):
        return torch.cat([model(images).argmax(1) == labels for images, labels in batches(split)]).float().mean().item()

    for epoch in range(options.epochs):
        model.train()
        for images, labels in batches("train"):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        model.eval()
        print(f"epoch {epoch + 1}: validation accuracy {accuracy('validation'):.1%}")
    error = equivariance_error(model, next(batches("test"))[0], options.group).worst
    print(f"test accuracy {accuracy('test'):.1%} at {size} x {size} pixels, equivariance error {error:.1e}")


if __name__ == "__main__":
    main()
