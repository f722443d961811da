"""A training loop of your own with fast layers: a small p4m network on the digits that ship with the package.

    python examples/train_digits.py [--steps 300]
"""

import argparse

import torch
import torch.nn.functional as F

import gconv_ext
from gconv_ext import nn as gnn
from gconv_ext.data import load_digits


def network(width: int = 8) -> torch.nn.Module:
    return torch.nn.Sequential(
        gnn.LiftingConv2d(1, width, 5, group="D4"), gnn.GroupBatchNorm2d(width), torch.nn.ReLU(), gnn.SpatialMaxPool2d(2),
        gnn.GroupConv2d(width, 2 * width, 5, group="D4"), gnn.GroupBatchNorm2d(2 * width), torch.nn.ReLU(), gnn.SpatialMaxPool2d(2),
        gnn.GroupConv2d(2 * width, 4 * width, 4, group="D4"), torch.nn.ReLU(), gnn.GroupPool(),
        torch.nn.Flatten(), torch.nn.Linear(4 * width, 10),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()

    torch.manual_seed(0)
    splits = load_digits().splits
    (images, labels), (test_images, test_labels) = (
        (torch.tensor(x).unsqueeze(1) / 255, torch.tensor(y).long()) for x, y in (splits["train"], splits["test"])
    )
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for step in range(options.steps):
        batch = torch.randint(len(labels), (64,))
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:>4}: loss {loss.item():.3f}")

    model.eval()
    with torch.no_grad():
        accuracy = (model(test_images).argmax(1) == test_labels).float().mean().item()
        # A test digit in any of its eight orientations gets the same answer.
        error = gconv_ext.equivariance_error(model, test_images[:64], "D4").worst
    print(f"test accuracy {accuracy:.1%}, largest change of a logit under turns and mirrors {error:.1e}")


if __name__ == "__main__":
    main()
