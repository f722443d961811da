"""Paper 4's Fig. 4, drawn from a results file."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def draw_curves(rows: list[dict], path: Path) -> Path:
    """The mean probability of "6" against the angle by which test sixes were turned, for the rows that have it.

    Args:
        rows: of results.jsonl.
        path: of the picture.

    Returns:
        The path.
    """
    figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
    colours: dict[tuple[str, str], tuple[float, ...]] = {}  # of each group and model; seeds differ in the line
    for row in rows:
        if curve := row["probability_of_six"]:
            config, half = row["config"], len(curve) // 2
            degrees = [360 * i / len(curve) for i in range(-half, half + 1)]
            label = f"{config['group']}, {config['model']}, seed {config['seed']}"
            colour = colours.setdefault((config["group"], config["model"]), plt.cm.tab20(2 * len(colours) % 19))
            style = ("-", "--", ":", "-.")[config["seed"] % 4]
            axis.plot(degrees, curve[half:] + curve[: half + 1], style, color=colour, marker=".", label=label)
    axis.set(xlabel="angle, degrees", ylabel="probability of “6”", xticks=range(-180, 181, 45), ylim=(0, 1))
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
