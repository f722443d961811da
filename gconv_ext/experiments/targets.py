"""The papers' tables and figures, each a plain file: experiments/papers/<target>.toml.

A file has

    title, experiment, dataset, seeds    one of EXPERIMENTS, what to load, how many seeds at full scale
    [settings]                           of every run, at full scale: fields of the experiment's configuration
    [[runs]]                             fields of some runs; lists stand for all combinations
    [figures]                            keys of a results row and their labels; those with "%" are shown times 100
    [published]                          columns (fields of settings, then figures) and rows of the paper's own numbers, as
                                         it prints them: 92.35, [92.35, 0.12] with its error, "unreadable" or "–" for none
    [comparison]                         title, figure, field, of, with: runs that differ in `field` alone, seed by seed;
                                         choose: and in this field, whose value the validation split would pick
    lines                                the field that pictures tell apart by colour
    curves                               whether to draw the accuracy by epoch
    pictures                             more of them, by their names in report_pictures.PICTURES
    remark                               what the report says below the tables: causes, where ours differs from the paper's
    results                              the target in whose folder the runs are kept, since it has some of them too
"""

from __future__ import annotations

import difflib
import importlib
import itertools
import math
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SMALLEST_BATCH = 16  # of a scale below 1; unless the paper's own is smaller
PAPERS = Path(__file__).with_name("papers")


class Experiment(NamedTuple):
    """A module of this package with a configuration (a frozen dataclass with a `name`) and `run`, as noise.py has it."""

    module: str
    config: str
    images: str | None  # the configuration's field for the number of training images; None when it is always the same
    scaled: tuple[str, ...]  # its other fields that a scale multiplies: epochs, images of other splits

    def load(self):
        return importlib.import_module(f".{self.module}", __package__)


EXPERIMENTS = {
    "noise": Experiment("noise", "NoiseConfig", "train_digits", ("epochs",)),
    "subsampling": Experiment("subsampling", "SubsamplingConfig", "train_images", ("epochs", "angle_images")),
    "classification": Experiment(
        "classification", "ClassificationConfig", "train_images", ("epochs", "warmup")
    ),
    "sixes": Experiment(
        "sixes", "SixesConfig", "train_images", ("epochs", "warmup", "validation_images", "angle_images")
    ),
    "quarter_turn": Experiment("quarter_turn", "QuarterTurnConfig", None, ()),
}


@dataclass(frozen=True)
class Target:
    """One table or figure; see the module.  `grid` has the settings of every run at full scale, without the seed."""

    name: str
    title: str
    experiment: str
    dataset: str
    seeds: int
    runs: list[dict]
    settings: dict
    lines: str
    figures: dict[str, str] = field(default_factory=dict)
    published: dict = field(default_factory=lambda: {"columns": [], "rows": []})
    comparison: dict | None = None
    curves: bool = False
    pictures: list[str] = field(default_factory=list)
    remark: str = ""
    results: str | None = None

    @property
    def grid(self) -> list[dict]:
        grid = []
        for block in self.runs:
            values = [value if isinstance(value, list) else [value] for value in block.values()]
            grid += [self.settings | dict(zip(block, choice)) for choice in itertools.product(*values)]
        return grid

    @property
    def varying(self) -> list[str]:
        """The fields in which the runs differ, in the order of the file; those of the runs' blocks first."""
        fields = dict.fromkeys(itertools.chain.from_iterable([*self.runs, self.settings]))
        return [name for name in fields if len({settings[name] for settings in self.grid}) > 1]

    @property
    def folder(self) -> str:
        """Of its results."""
        return self.results or self.name

    def published_figure(self, settings: dict, figure: str) -> tuple[float, float | None] | str | None:
        """(number, error or None) of the paper; or why there is no number; None when the paper has no such row."""
        columns = self.published["columns"]
        for row in self.published["rows"]:
            row = dict(zip(columns, row))
            if figure in row and all(settings[name] == row[name] for name in columns if name not in self.figures):
                value = row[figure]
                return value if isinstance(value, str) else tuple(value) if isinstance(value, list) else (value, None)
        return None


def target_names() -> list[str]:
    """By paper; its tables, then its figures, then what goes past it."""
    names = (path.stem for path in PAPERS.glob("*.toml"))
    return sorted(names, key=lambda name: (name.split("-")[0], "-table" not in name, "-fig" not in name, name))


def load_target(name: str) -> Target:
    """Reads experiments/papers/<name>.toml.

    Raises:
        InputError: no such target.
    """
    names = target_names()
    if name not in names:
        nearest = difflib.get_close_matches(name, names, 3, 0.4) or names
        raise InputError(f"unknown target {name!r}; the nearest are {', '.join(nearest)}; --list has all")
    return Target(name=name, **tomllib.loads((PAPERS / f"{name}.toml").read_text(encoding="utf-8")))


def shrunk(count: int, scale: float) -> int:
    """scale · count, rounded up; at least 1.  Exact: 0.07 of 100 is 7."""
    return max(1, math.ceil(Fraction(str(scale)) * count))


def check_scale(scale: float, seeds: int | None = None) -> None:
    if not 0 < scale <= 1:
        raise InputError(f"--scale must be above 0 and at most 1, got {scale:g}")
    if seeds is not None and seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {seeds}")


class Run(NamedTuple):
    """One training: the settings at full scale, and the configuration that it comes to."""

    settings: dict
    config: object


def expand(target: Target, images: int, *, scale: float = 1, seeds: int | None = None) -> list[Run]:
    """Every training of a target: the whole grid with the first seed, then with the next.

    Args:
        target: of load_target.
        images: how many there are in the training split; settings may ask for fewer.
        scale: factor of training images (at least one batch), epochs, seeds and batch size (at least 16), each rounded
            up.  Were batches left as they are, the steps of a training would shrink with the square of the scale.  The
            learning rate is multiplied by the square root of the batch's factor, as suits Adam, whose step does not shrink
            with the gradient's noise.  That of the distributions, whose few parameters have as far to go in a short
            training as in a long one, is divided by the factor of the number of steps.
        seeds: how many, in place of scale · target.seeds.

    Raises:
        InputError: a scale or a number of seeds out of range, or a configuration that the experiment refuses.
    """
    check_scale(scale, seeds)
    experiment = EXPERIMENTS[target.experiment]
    config = getattr(experiment.load(), experiment.config)
    seeds = shrunk(target.seeds, scale) if seeds is None else seeds
    runs = []
    for seed, settings in itertools.product(range(seeds), target.grid):
        scaled = {name: shrunk(settings[name], scale) for name in experiment.scaled if name in settings}
        if experiment.images:
            full = min(images, settings.get(experiment.images, images))
            batch, lr = (settings.get(name, getattr(config, name)) for name in ("batch_size", "lr"))
            scaled["batch_size"] = max(shrunk(batch, scale), min(batch, SMALLEST_BATCH))
            scaled["lr"] = lr * math.sqrt(scaled["batch_size"] / batch)
            scaled[experiment.images] = max(shrunk(full, scale), scaled["batch_size"])
            if "distribution_lr" in settings:
                steps, full_steps = (
                    trained[experiment.images] * trained["epochs"] / trained["batch_size"]
                    for trained in (scaled, {**settings, experiment.images: full, "batch_size": batch})
                )
                scaled["distribution_lr"] = settings["distribution_lr"] * full_steps / steps
        runs.append(Run(settings, config(**settings | scaled | {"seed": seed})))
    return runs
