"""The table and the plot of a benchmark."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def _settings(rows: list[dict]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["case"], row["pass"]) for row in rows))


def _about(about: dict) -> str:
    return (
        f"{about['device']}, {about['threads']} threads, torch {about['torch']}, gconv_ext {about['gconv_ext']} at commit "
        f"{(about['commit'] or 'unknown')[:12]}{'+' * str(about['commit']).endswith('+')}, {about['dtype']}"
    )


def table(rows: list[dict], about: dict) -> str:
    """The rows in Markdown, with a line on what the numbers mean."""
    meaning = (
        "Milliseconds (median), and the time of each contender over that of the best F.conv2d on an expanded filter (median "
        "of the interleaved rounds, quartiles in brackets); below 1 is faster than that peer. `expansion` is the network's "
        "filter expansion alone, forward and backward. The contender that \"auto\" takes is marked."
    )
    lines = [f"{_about(about)}.", "", meaning, ""]
    lines += ["| case | pass | contender | ms | ratio | peer | rounds |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        ratio = f"{row['ratio']:.2f} ({row['ratio_quartile1']:.2f}–{row['ratio_quartile3']:.2f})"
        name = row["contender"] + (" (auto)" if row["auto"] else "")
        lines.append(
            f"| {row['case']} | {row['pass']} | {name} | {row['median_ms']:.3f} | {ratio} | {row['peer']} | {row['rounds']} |"
        )
    lines += ["", "Where \"auto\" was not the fastest algorithm in its memory format, by more than 3%:", ""]
    return "\n".join(lines + (auto_losses(rows) or ["nowhere."])) + "\n"


def auto_losses(rows: list[dict]) -> list[str]:
    """One line for each case, pass and memory format in which another algorithm of ours was faster than auto's choice."""
    lines = []
    for row in rows:
        if row["auto"]:
            rivals = [
                other for other in rows
                if (other["case"], other["pass"]) == (row["case"], row["pass"])
                and other["contender"].endswith("channels_last") == row["contender"].endswith("channels_last")
                and not other["contender"].startswith("conv2d")
            ]  # fmt: skip
            best = min(rivals, key=lambda other: other["median_ms"])
            if row["median_ms"] > 1.03 * best["median_ms"]:
                slower = row["median_ms"] / best["median_ms"]
                lines.append(f"* {row['case']}, {row['pass']}: {row['contender']} took {slower:.2f} times as long as {best['contender']}")
    return lines


def plot(rows: list[dict], about: dict, path: Path) -> None:
    """Ratio of each contender's time to the best F.conv2d, one row a case and pass."""
    settings = _settings(rows)[::-1]
    names = [name for name in dict.fromkeys(row["contender"] for row in rows) if name != "expansion"]
    figure, axis = plt.subplots(figsize=(9, 0.9 + 0.3 * len(settings)), layout="constrained")
    for name in names:
        chosen = [row for row in rows if row["contender"] == name]
        y = [settings.index((row["case"], row["pass"])) for row in chosen]
        low = [max(0, row["ratio"] - row["ratio_quartile1"]) for row in chosen]
        high = [max(0, row["ratio_quartile3"] - row["ratio"]) for row in chosen]
        marker = "s" if name.startswith("conv2d") else "o"
        axis.errorbar([row["ratio"] for row in chosen], y, xerr=[low, high], fmt=marker, label=name, markersize=5, alpha=0.85)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_yticks(range(len(settings)), [f"{case}, {pass_}" for case, pass_ in settings], fontsize=8)
    axis.set_xscale("log")
    axis.margins(y=0.01)
    axis.xaxis.set_major_locator(matplotlib.ticker.FixedLocator([0.25, 0.33, 0.5, 0.7, 1, 1.5, 2, 3, 5, 8]))
    axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xlabel("time / time of the best F.conv2d on an expanded filter (left is faster)")
    axis.grid(axis="x", alpha=0.3, which="both")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axis.set_title(_about(about), fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)
