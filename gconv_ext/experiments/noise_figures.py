"""The pictures of paper 1, drawn from results files and the data's own functions."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch

from ..data import Digits, noise_map, noised
from ..training.fit import read_checkpoint

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = {
    "plain": "#7f7f7f", "p4": "#1f77b4", "relaxed": "#d95f02", "p4m": "#17becf", "relaxed-p4m": "#e7298a",
    "relaxed-translation": "#7570b3",
}  # fmt: skip
NOISE_NAMES = {
    "none": "no noise", "iso": "isotropic noise", "aniso": "anisotropic noise", "linear": "linear noise",
    "stripes": "striped noise", "radial": "radial noise",
}  # fmt: skip


def draw_all(rows: list[dict], digits: Digits, out: Path) -> list[Path]:
    """Writes every picture that the rows allow into out/ and returns their paths."""
    maps = {row["config"]["noise"] for row in rows} - {"none", "iso", "aniso"}
    paths = [_noise_map("aniso", out / "fig1-noise-map.png")]
    paths += [_noise_map(noise, out / f"noise-map-{noise}.png") for noise in sorted(maps)]
    paths.append(_digit(digits, rows[0]["config"], out / "fig2-digit.png"))
    for setting in sorted({_setting(row) for row in rows}):
        noise, sigma, correlation = setting
        title = f"{NOISE_NAMES[noise]}, σ = {sigma:g}" + (f", correlation {correlation:g} px" if correlation else "")
        name = f"curves-{noise}-{sigma:g}" + (f"-correlation{correlation:g}" if correlation else "")
        paths.append(_curves([row for row in rows if _setting(row) == setting], title, out / f"{name}.png"))
    relaxed = [row for row in rows if row["config"]["model"].startswith("relaxed")]
    paths += [_relaxed_weights(row, out) for row in relaxed]
    return [*paths, _bars(rows, out / "table1.png")]


def _setting(row: dict) -> tuple[str, float, float]:
    """(noise, σ, correlation length) of a run."""
    config = row["config"]
    return config["noise"], config["sigma"], config.get("correlation", 0.0)  # the first results files have none


def _save(figure, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _image(axis, image, title, **options):
    shown = axis.imshow(image.numpy(), **options)
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()
    return shown


def _noise_map(noise: str, path: Path) -> Path:
    """Fig. 1, for one kind of noise: its strength by pixel, and a sample on a blank image."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
    shown = _image(axes[0], noise_map(noise), "variance, in units of σ²", cmap="viridis")
    figure.colorbar(shown, ax=axes[0], shrink=0.85)
    sample = noised(torch.zeros(1, 1, 28, 28), noise, 0.2, torch.Generator().manual_seed(0))
    shown = _image(axes[1], sample[0, 0], "a sample on a blank image, σ = 0.2", cmap="gray")
    figure.colorbar(shown, ax=axes[1], shrink=0.85)
    return _save(figure, path)


def _digit(digits: Digits, config: dict, path: Path) -> Path:
    """Fig. 2: one digit, not turned, clean and under both noises."""
    sigma = config["sigma"]
    image = torch.from_numpy(digits.splits["test"][0][:1].astype(np.float32) / 255).unsqueeze(1)
    figure, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
    for axis, noise in zip(axes, ("none", "iso", "aniso")):
        shown = noised(image, noise, sigma, torch.Generator().manual_seed(0))[0, 0]
        title = NOISE_NAMES[noise] + ("" if noise == "none" else f", σ = {sigma:g}")
        _image(axis, shown, title, cmap="gray", vmin=-3 * sigma, vmax=1 + 3 * sigma)
    return _save(figure, path)


def _curves(rows: list[dict], title: str, path: Path) -> Path:
    """Figs. 3 to 5: training and validation accuracy and loss by epoch."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for row in rows:
        epochs = [epoch["epoch"] + 1 for epoch in row["epochs"]]
        colour, label = COLOURS[row["config"]["model"]], row["config"]["model"]
        if len({r["config"]["seed"] for r in rows}) > 1:
            label += f", seed {row['config']['seed']}"
        for axis, figure_name, factor in ((axes[0], "accuracy", 100), (axes[1], "loss", 1)):
            for split, style in (("train", ":"), ("validation", "-")):
                values = [factor * epoch[f"{split}_{figure_name}"] for epoch in row["epochs"]]
                axis.plot(epochs, values, style, color=colour, marker=".", label=f"{label}, {split}")
    for axis, name in ((axes[0], "accuracy (%)"), (axes[1], "cross-entropy")):
        axis.set_xlabel("epoch")
        axis.set_ylabel(name)
        axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle(title)
    return _save(figure, path)


def _relaxed_weights(row: dict, out: Path) -> Path:
    """The learned relaxed weights of each layer: w_l(h) by element, in which a flat line is an equivariant bank, or the
    mean over the banks of |w_l(p) − mean|, in which a dark pixel is one like the others."""
    state = read_checkpoint(out / row["name"] / "last.ckpt")["state_dict"]
    layers = [weights for name, weights in state.items() if name.endswith("relaxed_weight")]
    over_pixels = layers[0].dim() == 3
    figure, axes = plt.subplots(
        2, -(-len(layers) // 2), figsize=(11, 4.6), sharex=True, sharey=True, layout="constrained"
    )
    for index, (axis, weights) in enumerate(zip(axes.flat, layers)):
        title = "input layer" if index == 0 else f"hidden layer {index}"
        if over_pixels:
            departure = (weights - weights.mean((1, 2), keepdim=True)).abs().mean(0)
            figure.colorbar(_image(axis, departure, title, vmin=0), ax=axis, shrink=0.85)
            continue
        for bank, values in enumerate(weights.tolist()):
            axis.plot(range(len(values)), values, marker="o", label=f"bank {bank + 1}")
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(weights.shape[1]), ["e", "r", "r²", "r³", "m", "rm", "r²m", "r³m"][: weights.shape[1]])
        axis.grid(alpha=0.3)
    if not over_pixels:
        axes.flat[0].legend(fontsize=8)
        figure.supylabel("relaxed weight")
    figure.suptitle(f"relaxed weights by {'pixel' if over_pixels else 'element'}, {row['name']}")
    return _save(figure, out / f"relaxed-weights-{row['name']}.png")


def _bars(rows: list[dict], path: Path) -> Path:
    """Table 1 as bars: noisy and clean test accuracy; seeds are averaged."""
    settings = list(dict.fromkeys(map(_setting, rows)))
    models = [model for model in COLOURS if any(row["config"]["model"] == model for row in rows)]
    figure, axis = plt.subplots(figsize=(max(5, 2.2 * len(settings)), 3.8), layout="constrained")
    width = 0.8 / (2 * len(models))
    heights = []
    for m, model in enumerate(models):
        for k, (key, hatch) in enumerate((("test_noisy_accuracy", None), ("test_clean_accuracy", "//"))):
            for s, setting in enumerate(settings):
                values = [
                    100 * row[key] for row in rows
                    if row["config"]["model"] == model and _setting(row) == setting
                ]  # fmt: skip
                if values:
                    heights.append(np.mean(values))
                    label = f"{model}, {'clean' if k else 'noisy'}" if s == 0 else None
                    bar = axis.bar(
                        s + (2 * m + k - len(models) + 0.5) * width, heights[-1], width, color=COLOURS[model],
                        alpha=0.55 if k else 1, hatch=hatch, label=label,
                    )  # fmt: skip
                    axis.bar_label(bar, fmt="%.1f", fontsize=8)
    names = [
        NOISE_NAMES[noise]
        + ("" if noise == "none" else f"\nσ = {sigma:g}")
        + (f", {correlation:g} px" if correlation else "")
        for noise, sigma, correlation in settings
    ]
    axis.set_xticks(range(len(settings)), names)
    axis.set_ylabel("test accuracy (%)")
    axis.set_ylim(max(0, min(heights) - 10), 100)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return _save(figure, path)
