"""Draws the pictures of the documentation into docs/pictures: python docs/make_pictures.py."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from gconv_ext import PointGroup, exactness, transform_image
from gconv_ext.data import load_digits
from gconv_ext.functional import lifting_conv2d
from gconv_ext.nn import LiftingConv2d

PICTURES = Path(__file__).with_name("pictures")
ROTATIONS = ("e", "r", "r²", "r³")


def draw_lifting() -> None:
    """A digit and its feature map on the group; the same turned by 90°."""
    images, labels = load_digits().splits["test"]
    digit = torch.tensor(images[list(labels).index(7)]).float()[None, None] / 255
    edge = torch.tensor([[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]]).view(1, 1, 3, 3)
    group = PointGroup("C4")
    figure, axes = plt.subplots(2, 5, figsize=(9, 3.9), layout="constrained")
    for line, element, name in zip(axes, (0, 1), ("x", "r·x")):
        x = transform_image(digit, group, element)
        y = lifting_conv2d(x, edge, group=group, padding=1)[0, 0]
        line[0].imshow(x[0, 0], cmap="gray")
        line[0].set_title(name)
        for u, plane in enumerate(y):
            line[1 + u].imshow(plane, cmap="coolwarm", vmin=-4, vmax=4)
            line[1 + u].set_title(f"y[u = {ROTATIONS[u]}]")
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(PICTURES / "lifting.png", dpi=110)


def draw_sampling() -> None:
    """Which pixels a stride of 2 reads, of 8 and of 9, and where they are after a quarter turn."""
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.9), layout="constrained")
    for axis, size in zip(axes, (8, 9)):
        exact = exactness(LiftingConv2d(1, 1, 1, group="C4", stride=2), size).exact
        read = torch.zeros(1, 1, size, size)
        read[..., ::2, ::2] = 1
        turned = transform_image(read, PointGroup("C4"), 1)
        for marks, marker, what in ((read, "s", "read"), (turned, "x", "read, after a quarter turn")):
            rows, columns = marks[0, 0].nonzero().T
            axis.scatter(columns, rows, marker=marker, s=90 if marker == "s" else 60, alpha=0.7, label=what)
        axis.set(xlim=(-0.7, size - 0.3), ylim=(size - 0.3, -0.7), xticks=range(size), yticks=range(size))
        axis.grid(alpha=0.3)
        axis.set_aspect("equal")
        axis.set_title(f"{size} pixels, stride 2: {'exact' if exact else 'not exact'}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(PICTURES / "sampling.png", dpi=110)


def draw_orbits() -> None:
    """The nine taps of a 3 x 3 kernel by orbit under C4, and one orbit of (element, tap) pairs."""
    figure, axes = plt.subplots(1, 5, figsize=(9.5, 2.3), layout="constrained")
    orbit_of, group = torch.full((9,), -1), PointGroup("C4")
    for number, first in enumerate(group.tap_orbits(3)):
        for g in range(group.order):
            orbit_of[group.moved_tap(g, first, 3)] = number
    axes[0].imshow(orbit_of.view(3, 3), cmap="Pastel1", vmin=0, vmax=8)
    axes[0].set_title("orbits of taps", fontsize=10)
    tap = torch.zeros(1, 1, 3, 3)
    tap[..., 0, 1] = 1
    for g in range(4):
        axes[1 + g].imshow(transform_image(tap, group, g)[0, 0], cmap="Blues", vmin=0, vmax=1.5)
        axes[1 + g].set_title(f"tap of element {ROTATIONS[g]}", fontsize=10)
    for axis in axes:
        axis.set_xticks([-0.5, 0.5, 1.5, 2.5], [])
        axis.set_yticks([-0.5, 0.5, 1.5, 2.5], [])
        axis.grid(color="gray", lw=0.8)
        axis.tick_params(length=0)
    figure.savefig(PICTURES / "orbits.png", dpi=110)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    for draw in (draw_lifting, draw_sampling, draw_orbits):
        draw()


if __name__ == "__main__":
    main()
