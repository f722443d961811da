"""Pictures of any target, drawn from its rows."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib
import numpy as np

from .targets import Target

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

COLOURS = [plt.cm.tab10(i) for i in range(10)]


def draw_points(target: Target, by_settings: list[tuple[dict, list[dict]]], path: Path) -> Path:
    """Each figure of the target's table: mean and standard error of our runs, and the published number as a diamond.

    Args:
        target: with figures.
        by_settings: (settings, its rows), in the order of the grid; none of them without rows.
        path: of the picture.
    """
    other = [name for name in target.varying if name != target.lines]
    places = list(dict.fromkeys(_label(target, settings, rows[0], other) for settings, rows in by_settings))
    colours = _colours(target)
    figure, axes = plt.subplots(
        1, len(target.figures), figsize=(4.6 * len(target.figures), 1.3 + 0.5 * len(places)), sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axis, (key, label) in zip(axes[0], target.figures.items()):
        for settings, rows in by_settings:
            value = settings[target.lines]
            place = places.index(_label(target, settings, rows[0], other))
            y = place + 0.22 * (list(colours).index(value) / max(1, len(colours) - 1) - 0.5)
            mean, error = mean_and_error([shown(row[key], label) for row in rows])
            axis.errorbar(mean, y, xerr=error, fmt="o", color=colours[value], capsize=3)
            published = target.published_figure(settings, key)
            if isinstance(published, tuple):
                axis.errorbar(published[0], y, xerr=published[1], fmt="D", color=colours[value], markerfacecolor="none")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0, 0].set_yticks(*([[]] if places == [""] else [range(len(places)), places]))
    axes[0, 0].set_ylim(len(places) - 0.5, -0.5)  # the first at the top
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=str(value)) for value, colour in colours.items()
    ]
    if target.published["rows"]:
        handles.append(
            Line2D([], [], marker="D", linestyle="", color="black", markerfacecolor="none", label="published")
        )
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=8)
    return save(figure, path)


def draw_curves(target: Target, by_settings: list[tuple[dict, list[dict]]], path: Path) -> Path:
    """Training and validation accuracy by epoch: the mean over the seeds, and a band from the least to the largest.

    Args: as for draw_points.
    """
    other = [name for name in target.varying if name != target.lines]
    panels = list(dict.fromkeys(_label(target, settings, rows[0], other) for settings, rows in by_settings))
    colours = _colours(target)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(1 + 3.6 * len(panels), 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    for settings, rows in by_settings:
        axis = axes[0, panels.index(_label(target, settings, rows[0], other))]
        for split, style in (("train", ":"), ("validation", "-")):
            curves = 100 * np.array([[epoch[f"{split}_accuracy"] for epoch in row["epochs"]] for row in rows])
            epochs = range(1, curves.shape[1] + 1)
            colour, value = colours[settings[target.lines]], settings[target.lines]
            axis.plot(epochs, curves.mean(0), style, color=colour, marker=".", label=f"{value}, {split}")
            axis.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.15)
    for axis, title in zip(axes[0], panels):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("accuracy (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return save(figure, path)


def shown(value: float, label: str) -> float:
    """As it stands under a label: times 100 when that is in percent."""
    return 100 * value if "%" in label else value


def mean_and_error(values: list[float]) -> tuple[float, float | None]:
    """Mean, and its standard error; None with one value."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return statistics.fmean(values), error


def title_of(name: str) -> str:
    """A field of a configuration, for people."""
    return {"sigma": "σ", "alpha": "α", "correlation": "correlation (px)"}.get(name, name.replace("_", " "))


def value_text(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(target: Target, settings: dict, row: dict, names: list[str]) -> str:
    """What the row has, of the fields in which the run is not like the target's own settings."""
    unlike = [name for name in names if name not in target.settings or settings[name] != target.settings[name]]
    return ", ".join(f"{title_of(name)} {value_text(row['config'][name])}" for name in unlike) or ("as in the paper" if names else "")


def _colours(target: Target) -> dict:
    values = dict.fromkeys(settings[target.lines] for settings in target.grid)
    return {value: COLOURS[i % len(COLOURS)] for i, value in enumerate(values)}


def save(figure, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
