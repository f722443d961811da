"""A p4m U-Net for segmentation: turn or mirror the picture, and the mask turns with it.

    python examples/unet.py [--size 64] [--steps 150]

The task is made here: blobs that differ from the noise around them only by their stripes, which run in any direction.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

import gconv_ext
from gconv_ext import nn as gnn


def convolutions(in_fields: int, fields: int) -> torch.nn.Sequential:
    """Two 3 x 3 convolutions; an image, of one channel, is lifted."""
    conv = gnn.LiftingConv2d if in_fields == 1 else gnn.GroupConv2d
    return torch.nn.Sequential(
        conv(in_fields, fields, 3, group="D4", padding=1), gnn.GroupBatchNorm2d(fields), torch.nn.ReLU(),
        gnn.GroupConv2d(fields, fields, 3, group="D4", padding=1), gnn.GroupBatchNorm2d(fields), torch.nn.ReLU(),
    )  # fmt: skip


class Encoder(torch.nn.Module):
    """[B, 1, H, W] -> maps [B, fields, 8, H / 2ⁱ, W / 2ⁱ] of every level i, the finest first."""

    def __init__(self, fields: tuple[int, ...]):
        super().__init__()
        self.levels = torch.nn.ModuleList(convolutions(*pair) for pair in zip([1, *fields], fields))
        self.down = gnn.SpatialMaxPool2d(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.levels[0](x)]
        for level in self.levels[1:]:
            maps.append(level(self.down(maps[-1])))
        return maps


class UNet(torch.nn.Module):
    """Logits of the mask, [B, 1, H, W] -> the same.

    Pooling by 2 x 2 keeps the symmetry where it meets maps of even size only: of an odd one it drops the last row and
    column, and of the turned map others.  Hence H and W must be multiples of 2 to the number of poolings, which is also
    where a map upsampled by 2 fits the skip connection.  gconv_ext.exactness checks it.
    """

    def __init__(self, fields: tuple[int, ...] = (6, 12, 24)):
        super().__init__()
        self.encoder = Encoder(fields)
        pairs = zip(fields, fields[1:])  # of a finer and a coarser level
        self.up = torch.nn.ModuleList(gnn.GroupConvTranspose2d(b, a, 2, group="D4", stride=2) for a, b in pairs)
        self.merge = torch.nn.ModuleList(convolutions(2 * n, n) for n in fields[:-1])
        self.head = torch.nn.Sequential(gnn.GroupConv2d(fields[0], 1, 1, group="D4"), gnn.GroupPool("mean"))

    def forward(self, x: Tensor) -> Tensor:
        *skips, x = self.encoder(x)
        for skip, up, merge in zip(reversed(skips), reversed(self.up), reversed(self.merge)):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


def pictures(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures and masks [count, 1, size, size]: two elliptic blobs each; mean and variance are the same in and out."""

    def uniform(low, high):
        return low + (high - low) * torch.rand(count, 2, 1, 1, generator=generator)

    row, column = (torch.arange(size).view(shape) + 0.5 for shape in ((-1, 1), (1, -1)))
    angle, long, short = uniform(0, torch.pi), uniform(0.15, 0.3) * size, uniform(0.1, 0.15) * size
    rows, columns = row - uniform(0.2, 0.8) * size, column - uniform(0.2, 0.8) * size
    along, across = angle.cos() * rows + angle.sin() * columns, angle.cos() * columns - angle.sin() * rows
    mask = ((along / long).square() + (across / short).square() < 1).any(1, keepdim=True)
    angle, phase = (x[:, :1] for x in (uniform(0, torch.pi), uniform(0, 2 * torch.pi)))
    stripes = torch.sin((angle.cos() * row + angle.sin() * column) * (2 * torch.pi / 5) + phase)
    noise = torch.randn(count, 1, size, size, generator=generator)
    return torch.where(mask, 0.5**0.5 * noise + stripes, noise), mask.float()


def intersection_over_union(logits: Tensor, mask: Tensor) -> float:
    found, true = logits > 0, mask > 0
    return ((found & true).sum() / (found | true).sum()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = UNet().to(device)
    exactness = gconv_ext.exactness(model.encoder, options.size)
    if not exactness.exact:
        parser.error(f"--size must be exact under turns, such as {exactness.nearest_sizes}, got {options.size}")
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for step in range(options.steps):
        images, masks = (x.to(device) for x in pictures(8, options.size, generator))
        loss = F.binary_cross_entropy_with_logits(model(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            print(f"step {step:>4}: loss {loss.item():.3f}")

    model.eval()
    images, masks = (x.to(device) for x in pictures(32, options.size, generator))
    with torch.no_grad():
        print(f"IoU on pictures that it has not seen: {intersection_over_union(model(images), masks):.3f}")
    error = gconv_ext.equivariance_error(model, images[:8], "D4").worst
    print(f"largest difference between the mask of the turned picture and the turned mask: {error:.1e}")


if __name__ == "__main__":
    main()
