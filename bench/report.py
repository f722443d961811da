"""The table and the plot of a benchmark."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from .contenders import PARTS  # noqa: E402
from .memory import ALGORITHMS  # noqa: E402


def _settings(rows: list[dict]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["case"], row["pass"]) for row in rows))


def _threads(*numbers: int) -> str:
    return f"{' and '.join(map(str, numbers))} thread{'s' * (numbers != (1,))}"


def _about(about: dict) -> str:
    return (
        f"{about['device']}, {_threads(*about['threads'])}, torch {about['torch']}, gconv_ext {about['gconv_ext']} at commit "
        f"{(about['commit'] or 'unknown')[:12]}{'+' * str(about['commit']).endswith('+')}, {about['dtype']}"
    )


def table(rows: list[dict], about: dict) -> str:
    """The rows in Markdown, with a line on what the numbers mean."""
    meaning = (
        "Milliseconds (median), and the time of each contender over that of the best F.conv2d on an expanded filter (median "
        "of the interleaved rounds, quartiles in brackets); below 1 is faster than that peer. The contender that \"auto\" takes "
        "is marked. Of a training step, `expansion` is the network's filter expansions alone, and `convolutions` its convolution "
        "layers (with their ReLUs) alone, one after another on the inputs and the gradients that they have in the network, as "
        "\"auto\" computes them; both forward and backward."
    )
    if about["memory_kept"]:
        meaning += " malloc keeps what is freed, for every contender, so that no timing holds page faults that another left to it."
    lines = [f"{_about(about)}.", "", meaning, ""]
    lines += ["| case | pass | threads | contender | ms | ratio | peer | rounds |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        ratio = f"{row['ratio']:.2f} ({row['ratio_quartile1']:.2f}–{row['ratio_quartile3']:.2f})"
        name = row["contender"] + (" (auto)" if row["auto"] else "")
        setting = f"{row['case']} | {row['pass']} | {row['threads']}"
        lines.append(f"| {setting} | {name} | {row['median_ms']:.3f} | {ratio} | {row['peer']} | {row['rounds']} |")
    if shares := convolution_shares(rows):
        lines += ["", *shares]
    lines += ["", "Where \"auto\" was not the fastest algorithm in its memory format, by more than 3%:", ""]
    return "\n".join(lines + (auto_losses(rows) or ["nowhere."])) + "\n"


def memory_table(peaks: list[dict], about: dict) -> str:
    """The rows of memory.measure in Markdown, contiguous / channels last, and where irrep needs more than it may."""
    l2_mib = about["l2_cache"] / 2**20
    lines = [
        "## Memory", "",
        "MiB at the peak of one call beyond what was there before it, the result (and the gradients) included, as contiguous / "
        "channels last; each measured in a fresh process as the growth of its resident memory, which is good to about half a MiB.",
        "", "| case | pass | threads | dense | irrep | F.conv2d |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    found = {(row["case"], row["pass"], row["threads"], row["contender"]): row["peak_mib"] for row in peaks}
    over = []
    for setting in dict.fromkeys(key[:3] for key in found):
        both = {
            name: [found[(*setting, name)], found[(*setting, f"{name} channels_last")]] for name in ALGORITHMS
        }
        cells = [f"{contiguous:.1f} / {last:.1f}" for contiguous, last in both.values()]
        lines.append(f"| {' | '.join([*map(str, setting), *cells])} |")
        case, pass_, threads = setting
        for format, dense, irrep in zip(("contiguous", "channels last"), both["dense"], both["irrep"]):
            if irrep > dense + threads * l2_mib:
                over.append(f"* {case}, {pass_}, {_threads(threads)}, {format}: {irrep - dense:.1f} MiB more than dense")
    lines += ["", f"Where irrep needed more than dense and one second-level cache ({l2_mib:g} MiB) a thread:", ""]
    return "\n".join(lines + (over or ["nowhere."])) + "\n"


def convolution_shares(rows: list[dict]) -> list[str]:
    """One line for each network and number of threads: what part of its training step with "auto" the convolutions are."""
    times = {(row["case"], row["threads"], row["contender"]): row["median_ms"] for row in rows}
    return [
        f"* {case}, {_threads(threads)}: the convolutions are {time / times[case, threads, 'auto']:.0%} of the training step"
        for (case, threads, contender), time in times.items()
        if contender == "convolutions"
    ]


def auto_losses(rows: list[dict]) -> list[str]:
    """One line for each case, pass, number of threads and memory format in which another algorithm of ours was faster than
    auto's choice."""
    lines = []
    for row in rows:
        if row["auto"]:
            rivals = [
                other for other in rows
                if all(other[key] == row[key] for key in ("case", "pass", "threads"))
                and other["contender"].endswith("channels_last") == row["contender"].endswith("channels_last")
                and not other["contender"].startswith("conv2d")
            ]  # fmt: skip
            best = min(rivals, key=lambda other: other["median_ms"])
            if row["median_ms"] > 1.03 * best["median_ms"]:
                slower = row["median_ms"] / best["median_ms"]
                setting = f"{row['case']}, {row['pass']}, {_threads(row['threads'])}"
                lines.append(f"* {setting}: {row['contender']} took {slower:.2f} times as long as {best['contender']}")
    return lines


def plot(rows: list[dict], about: dict, path: Path) -> None:
    """Ratio of each contender's time to the best F.conv2d: one row a case and pass, one panel a number of threads."""
    settings, threads = _settings(rows)[::-1], about["threads"]
    names = [name for name in dict.fromkeys(row["contender"] for row in rows) if name not in PARTS]
    size = (4.5 + 4.5 * len(threads), 1.1 + 0.3 * len(settings))
    figure, axes = plt.subplots(1, len(threads), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for number, axis in zip(threads, axes[0]):
        for name in names:
            chosen = [row for row in rows if row["contender"] == name and row["threads"] == number]
            y = [settings.index((row["case"], row["pass"])) for row in chosen]
            low = [max(0, row["ratio"] - row["ratio_quartile1"]) for row in chosen]
            high = [max(0, row["ratio_quartile3"] - row["ratio"]) for row in chosen]
            style = dict(fmt="s" if name.startswith("conv2d") else "o", markersize=5, alpha=0.85)
            axis.errorbar([row["ratio"] for row in chosen], y, xerr=[low, high], label=name, **style)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_yticks(range(len(settings)), [f"{case}, {pass_}" for case, pass_ in settings], fontsize=8)
        axis.set_xscale("log")
        axis.margins(y=0.01)
        axis.xaxis.set_major_locator(matplotlib.ticker.FixedLocator([0.25, 0.33, 0.5, 0.7, 1, 1.5, 2, 3, 5, 8]))
        axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", alpha=0.3, which="both")
        axis.set_title(_threads(number), fontsize=9)
    figure.supxlabel("time / time of the best F.conv2d on an expanded filter (left is faster)", fontsize=9)
    axes[0, -1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(_about(about), fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)
