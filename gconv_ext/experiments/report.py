"""Tables and pictures of every target that has results, as Markdown and as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import math
import re
import statistics
from pathlib import Path

from markdown_it import MarkdownIt

from ..errors import InputError
from ..training.results import read_rows
from .reproduce import RESULTS, find_row
from .report_figures import draw_curves, draw_points, mean_and_error, shown, title_of, value_text
from .report_pictures import PICTURES
from .targets import Target, expand, load_target, target_names

LEGEND = """\
Made by `gconv-ext report` from the results files alone. A number is the mean over the seeds ± its standard error; *published*
is the paper's own. A difference stands in **bold** where it is larger than the error bars: the two standard errors in
quadrature, or ours alone where the paper gives none (it then has an unknown error of its own). With one seed there are no
error bars. A scale below 1 means that training images, epochs, seeds and batches (not below 16) are each multiplied by it, and
learning rates by the square root of the batch's factor (those of learned subsets are divided by the factor of the number of
steps), so that networks are trained less than the paper's: a difference from the published number is then to be expected.
"""
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gconv_ext: the papers' results, reproduced</title>
<style>
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.55 system-ui, sans-serif; color: #222; background: #fff; }}
h1, h2, h3 {{ line-height: 1.25; }}
h2 {{ margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1.5rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.9rem; }}
th, td {{ padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; }}
th {{ background: #f5f5f5; }}
pre {{ background: #f5f5f5; padding: 0.7rem; overflow-x: auto; }}
code {{ font-size: 0.9em; }}
img {{ max-width: 100%; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_report(results: Path, out: Path) -> list[Path]:
    """Writes report.md, report.html and the pictures into out/, and returns their paths.

    Args:
        results: folder with <target>/results.jsonl, as gconv-ext reproduce writes them.
        out: folder to write to.

    Raises:
        InputError: there are no results, or a file is not a results file of gconv-ext reproduce.
        OSError: `out` cannot be written.
    """
    parts, pictures, missing = [], [], []
    for target in map(load_target, target_names()):
        path = results / target.folder / RESULTS
        by_settings = _by_settings(target, read_rows(path), path)
        if not by_settings:
            missing.append(f"{target.name} ({target.title})")
            continue
        out.mkdir(parents=True, exist_ok=True)
        drawn = [draw_points(target, by_settings, out / f"{target.name}.png")] if target.figures else []
        drawn += [draw_curves(target, by_settings, out / f"{target.name}-curves.png")] if target.curves else []
        drawn += [PICTURES[name](target, by_settings, out / f"{target.name}-{name}.png") for name in target.pictures]
        parts.append(_section(target, by_settings, drawn))
        pictures += drawn
    if not parts:
        raise InputError(f"{results}: no results of gconv-ext reproduce here")
    if missing:
        parts.append("## Not run\n\n" + "\n".join(f"* {line}" for line in missing))
    text = "\n\n".join(["# The papers' results, reproduced", LEGEND.strip(), *parts]) + "\n"
    markdown, page = out / "report.md", out / "report.html"
    markdown.write_text(text, encoding="utf-8")
    body = MarkdownIt().enable("table").render(text)
    inline = re.sub(r'src="([^"]+)"', lambda found: f'src="{_data_uri(out / found[1])}"', body)
    page.write_text(PAGE.format(body=inline), encoding="utf-8")
    return [page, markdown, *pictures]


def _data_uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def _by_settings(target: Target, rows: list[dict], path: Path) -> list[tuple[dict, list[dict]]]:
    """(settings, its rows in the order of their seeds), in the order of the grid; settings without rows are left out."""
    if not rows:
        return []
    if not all("reproduce" in row for row in rows):
        raise InputError(f"{path}: not a results file of gconv-ext reproduce")
    first, seeds = rows[0], 1 + max(row["config"]["seed"] for row in rows)
    runs = expand(target, first["reproduce"]["all_images"], scale=first["reproduce"]["scale"], seeds=seeds)
    found = []
    for settings in target.grid:
        own = [find_row(run.config, first["config"]["data"], rows) for run in runs if run.settings == settings]
        if any(own):
            found.append((settings, [row for row in own if row]))
    return found


def _section(target: Target, by_settings, pictures: list[Path]) -> str:
    rows = [row for _, own in by_settings for row in own]
    tables = [_table(target, by_settings)] if target.figures else []
    if target.comparison:
        tables.append(_comparison(target, target.comparison, by_settings))
    if target.figures and "steps_per_second" in rows[0]:
        tables.append(_speeds(target, by_settings))
    shown_pictures = [f"![{target.title}]({picture.name})" for picture in pictures]
    remark = [target.remark.strip()] if target.remark else []
    return "\n\n".join([f"## {target.title}", _circumstances(target, by_settings), *tables, *remark, *shown_pictures])


def _circumstances(target: Target, by_settings) -> str:
    """Scale, images, epochs, seeds, device, commit, time; and the command that makes it again."""
    rows = [row for _, own in by_settings for row in own]
    settings, scale = len(by_settings), rows[0]["reproduce"]["scale"]
    images = _listed(row["reproduce"]["images"] for row in rows)
    epochs = _listed(len(row["epochs"]) for row in rows)
    seeds = max(len(own) for _, own in by_settings)
    batch = _listed(row["config"]["batch_size"] for row in rows if "batch_size" in row["config"])
    hours = sum(row["reproduce"]["wall_seconds"] for row in rows) / 3600
    versions = [row["versions"] for row in rows]
    text = (
        f"Scale {scale:g}: {images} training images, {epochs} epochs, {f'batches of {batch}, ' if batch else ''}{seeds} seed{'s' * (seeds > 1)}; {len(rows)} runs of {settings} settings"
        + (f" (the target has {len(target.grid)})" if settings < len(target.grid) else "")
        + f". Data: {_listed(row['data']['origin'] for row in rows)}."
        f" Device: {_listed(v['device'] for v in versions)}; threads of a run: {_listed(v['threads'] for v in versions)};"
        f" torch {_listed(v['torch'] for v in versions)}."
        f" Commit {_listed((v['commit'] or 'unknown')[:10] + '+' * (v['commit'] or '').endswith('+') for v in versions)}."
        f" {hours:.1f} hours, all runs added up."
    )
    data = "" if "ships with" in rows[0]["data"]["origin"] else " --data-dir DIR"
    command = f"gconv-ext reproduce {target.name} --scale {scale:g} --seeds {seeds}{data}"
    return f"{text}\n\n```\n{command}\n```"


def _table(target: Target, by_settings) -> str:
    header = [*map(title_of, target.varying), "n"]
    published = bool(target.published["rows"])
    for label in target.figures.values():
        header += [label, "published", "difference"] if published else [label]
    lines = []
    for settings, rows in by_settings:
        cells = [*(value_text(rows[0]["config"][name]) for name in target.varying), str(len(rows))]
        for key, label in target.figures.items():
            mean, error = mean_and_error([shown(row[key], label) for row in rows])
            cells.append(_with_error(mean, error))
            if published:
                cells += _against(mean, error, target.published_figure(settings, key))
        lines.append(cells)
    return _markdown(header, lines, left=len(target.varying))


def _against(mean: float, error: float | None, published) -> list[str]:
    """The published number and our difference from it, as the table shows them."""
    if not isinstance(published, tuple):
        return [published or "–", "–"]
    difference = _signed(mean - published[0])
    if error is not None and abs(mean - published[0]) > math.hypot(error, published[1] or 0):
        difference = f"**{difference}**"
    return [_with_error(*published), difference]


def _comparison(target: Target, asked: dict, by_settings) -> str:
    """Runs that differ in one field alone, seed by seed; and which value of another field the validation split picks."""
    figure, name, choose = asked["figure"], asked["field"], asked.get("choose")
    free = {name, choose}
    label = target.figures[figure]
    lines = []
    for settings, rows in by_settings:
        base = [own for other, own in by_settings if other[name] == asked["with"] and _same(other, settings, free)]
        if settings[name] != asked["of"] or not base:
            continue
        theirs = {row["config"]["seed"]: shown(row[figure], label) for row in base[0]}
        ours = {row["config"]["seed"]: shown(row[figure], label) for row in rows}
        differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        if not differences:
            continue
        mean, error = mean_and_error(differences)
        ahead = "–" if error is None else "undecided" if abs(mean) <= 2 * error else asked["of" if mean > 0 else "with"]
        cells = [value_text(rows[0]["config"][field]) for field in target.varying if field != name]
        if choose:
            alternatives = [(s, own) for s, own in by_settings if s[name] == asked["of"] and _same(s, settings, {choose})]
            best = max(alternatives, key=lambda one: (_validation(one[1], "accuracy"), -_validation(one[1], "loss")))[0]
            chosen = "" if len(alternatives) == 1 else "yes" if best == settings else "no"
            cells += [f"{100 * _validation(rows, 'accuracy'):.2f}", chosen]
        cells += [_with_error(*mean_and_error([values[seed] for seed in ours if seed in theirs])) for values in (ours, theirs)]
        lines.append([*cells, _with_error(mean, error, _signed), ahead])
    fields = [title_of(field) for field in target.varying if field != name]
    header = [*fields, *(["validation %", "chosen by it"] if choose else []), asked["of"], asked["with"], "difference", "ahead"]
    text = f"**{asked['title']}** {label}, {asked['of']} less {asked['with']}, of the same seeds; ahead: by more than two standard errors."
    if choose:
        text += f" Of several {title_of(choose)} the accuracy on the validation split after the last epoch (then the loss) picks one; tests play no part."
    return text + "\n\n" + _markdown(header, lines, left=len(fields))


def _same(one: dict, other: dict, but: set) -> bool:
    return all(one[key] == other[key] for key in one if key not in but)


def _validation(rows: list[dict], figure: str) -> float:
    return statistics.fmean(row["epochs"][-1][f"validation_{figure}"] for row in rows)


def _speeds(target: Target, by_settings) -> str:
    """Training steps a second by algorithm, for each value of the field that pictures tell apart."""
    by_line: dict[str, list[dict]] = {}
    for settings, rows in by_settings:
        by_line.setdefault(value_text(settings[target.lines]), []).extend(rows)
    lines = []
    for value, rows in by_line.items():
        speeds = [
            statistics.median(row["steps_per_second"][name] for row in rows) if name in rows[0]["steps_per_second"] else None
            for name in ("reference", "dense", "auto")
        ]
        seconds = statistics.median(row["seconds_per_epoch"] for row in rows)
        cells = [value, f"{rows[0]['parameters']:,}", *("–" if speed is None else f"{speed:.1f}" for speed in speeds)]
        lines.append([*cells, "–" if speeds[0] is None else f"{speeds[2] / speeds[0]:.2f}", f"{seconds:.1f}"])
    header = [title_of(target.lines), "parameters", "reference", "dense", "automatic", "automatic / reference", "s / epoch"]
    text = (
        "**Training steps per second** (forward and backward of one batch), the paths in turn after each run, median over "
        "the runs; the training itself took the automatic path."
    )
    return text + "\n\n" + _markdown(header, lines, left=1)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _with_error(mean: float, error: float | None, text="{:.2f}".format) -> str:
    return text(mean) + ("" if error is None else f" ± {error:.2f}")


def _listed(values) -> str:
    return ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in dict.fromkeys(values))


def _markdown(header: list[str], lines: list[list[str]], left: int) -> str:
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))
