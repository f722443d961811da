"""Pictures of single targets: paper 3's accuracy by angle, its equivariance error by stage, its feature maps; paper 4's
probability of a six by angle, and the part of the group that each layer keeps."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from . import sixes_figures
from .report_figures import COLOURS, save, value_text
from .targets import Target

BySettings = list[tuple[dict, list[dict]]]  # (settings, its rows), in the order of the grid; none without rows


def draw_angles(target: Target, by_settings: BySettings, path: Path) -> Path:
    """Accuracy by the angle of the test images (paper 3, Fig. 5 and 6): the mean over the seeds, and a band of one
    standard deviation; a panel for each σ of the training images' angles."""
    panels = list(dict.fromkeys(settings.get("sigma") for settings, _ in by_settings))
    lines = list(dict.fromkeys((settings["model"], settings["size"]) for settings in target.grid))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(1.5 + 5 * len(panels), 3.8), sharey=True, squeeze=False, layout="constrained"
    )
    for settings, rows in by_settings:
        axis = axes[0, panels.index(settings.get("sigma"))]
        degrees = rows[0]["test_accuracy_by_angle"]["degrees"]
        accuracy = 100 * np.array([row["test_accuracy_by_angle"]["accuracy"] for row in rows])
        colour = COLOURS[lines.index((settings["model"], settings["size"]))]
        exact = {None: "", True: ", exact", False: ", approximate"}[rows[0]["exact"]]
        mean, spread = accuracy.mean(0), accuracy.std(0, ddof=1) if len(rows) > 1 else 0
        axis.plot(degrees, mean, color=colour, label=f"{settings['model']} ({settings['size']}){exact}")
        axis.fill_between(degrees, mean - spread, mean + spread, color=colour, alpha=0.15)
    for axis, sigma in zip(axes[0], panels):
        axis.set_title("" if sigma is None else f"trained on angles of N(45°, {value_text(sigma)}°)", fontsize=10)
        axis.set_xlabel("angle of the test images (degrees)")
        axis.set_xticks(range(0, 361, 45))
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("accuracy (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return save(figure, path)


def draw_stages(target: Target, by_settings: BySettings, path: Path) -> Path:
    """Equivariance error (Eq. 14) of every stage by epoch, from before the training on (paper 3, Fig. 4): the mean over
    the seeds, and a band from the least to the largest; with the validation accuracy."""
    panels = len(by_settings)
    figure, axes = plt.subplots(
        1, panels, figsize=(1.5 + 4.6 * panels, 3.8), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (settings, rows) in zip(axes[0], by_settings):
        epochs = [error["epoch"] for error in rows[0]["equivariance_errors"]]
        for i, stage in enumerate(name for name in rows[0]["equivariance_errors"][0] if name != "epoch"):
            errors = np.array([[error[stage] for error in row["equivariance_errors"]] for row in rows])
            axis.plot(epochs, errors.mean(0), color=COLOURS[i], label=stage)
            axis.fill_between(epochs, errors.min(0), errors.max(0), color=COLOURS[i], alpha=0.15)
        accuracies = axis.twinx()
        accuracy = np.array([[epoch["validation_accuracy"] for epoch in row["epochs"]] for row in rows])
        accuracies.plot(epochs[1:], 100 * accuracy.mean(0), ":", color="red")
        accuracies.set_ylim(0, 100)
        accuracies.set_ylabel("validation accuracy (%), dotted", color="red")
        exact = "exact" if rows[0]["exact"] else "approximate"
        axis.set_title(f"{settings['model']}, size {settings['size']}, {exact}", fontsize=10)
        axis.set_xlabel("epoch")
        axis.set_yscale("symlog", linthresh=1e-8)  # float32 rounds to about there
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("equivariance error (Eq. 14)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return save(figure, path)


def draw_maps(target: Target, by_settings: BySettings, path: Path) -> Path:
    """The learned filter, and its maps of x and of T(x), turned back, for the first seed (paper 3, Fig. 3)."""
    names = list(by_settings[0][1][0]["maps"])
    figure, axes = plt.subplots(
        len(by_settings), 1 + len(names), figsize=(3 + 3 * len(names), 2.9 * len(by_settings)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for line, (settings, rows) in zip(axes, by_settings):
        maps = [np.array(rows[0]["maps"][name]) for name in names]
        limit = max(abs(m).max() for m in maps)
        weights = np.array(rows[0]["filter"])
        line[0].imshow(weights, cmap="coolwarm", vmin=-abs(weights).max(), vmax=abs(weights).max())
        line[0].set_title(f"size {settings['size']}: filter", fontsize=10)
        for axis, name, values in zip(line[1:], names, maps):
            top, bottom = np.hstack(list(values[:2])), np.hstack(list(values[2:]))
            axis.imshow(np.vstack([top, bottom]), cmap="coolwarm", vmin=-limit, vmax=limit)
            axis.set_title(f"{name}, all four rotations of the filter", fontsize=10)
        for axis in line:
            axis.set_axis_off()
    return save(figure, path)


def draw_probabilities(target: Target, by_settings: BySettings, path: Path) -> Path:
    """The probability of a six against the angle by which test sixes were turned (paper 4, Fig. 4)."""
    return sixes_figures.draw_curves([row for _, rows in by_settings for row in rows], path)


def draw_subsets(target: Target, by_settings: BySettings, path: Path) -> Path:
    """What part of the rotations each layer keeps, and with which probability the mirrored elements (paper 4, Fig. 5 and
    6): the mean over the seeds, and a bar from the least to the largest."""
    groups = list(dict.fromkeys(settings["group"] for settings, _ in by_settings))
    lines = list(dict.fromkeys(settings["elements"] for settings in target.grid))
    figure, axes = plt.subplots(
        1, len(groups), figsize=(1.5 + 5 * len(groups), 3.8), sharey=True, squeeze=False, layout="constrained"
    )
    for settings, rows in by_settings:
        axis, elements = axes[0, groups.index(settings["group"])], settings["elements"]
        layers = [layer["layer"] for layer in rows[0]["subsets"]]
        for key, marker, what in (("extent", "o-", ""), ("mirror", "s--", ", mirrors")):
            values = np.array([[layer[key] for layer in row["subsets"]] for row in rows], dtype=float)
            if np.isnan(values).any():  # a group without mirrors
                continue
            mean = values.mean(0)
            spread = mean - values.min(0), values.max(0) - mean
            axis.errorbar(
                range(len(layers)), mean, spread, fmt=marker, capsize=3, color=COLOURS[lines.index(elements)],
                label=f"{elements} rotations{what}",
            )  # fmt: skip
        axis.set_title(settings["group"], fontsize=10)
        axis.set_xticks(range(len(layers)), layers, rotation=45, ha="right", fontsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0, 0].set_ylim(0, 1.05)
    axes[0, 0].set_ylabel("part kept; of mirrors, the probability")
    return save(figure, path)


PICTURES = {
    "angles": draw_angles, "stages": draw_stages, "maps": draw_maps, "probabilities": draw_probabilities,
    "subsets": draw_subsets,
}  # fmt: skip
