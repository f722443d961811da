"""escnn's networks as they are, and after gconv_ext.convert: inference and a training step, in one run.

python -m gconv_ext.bench.convert [--threads 1 2] [--repeats 15] [--only TEXT] [--out bench/results/cpu]
"""

from __future__ import annotations

import argparse
import json
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gconv_ext import convert
from gconv_ext.data.digits import load_digits
from gconv_ext.training.results import versions

from .timing import interleaved, keep_memory

PASSES = ["inference", "training step"]
PEER = "escnn"


class SteerableCNN(nn.Module):
    """escnn's introductory network for MNIST: six 7 x 7 and 5 x 5 convolutions between regular fields of C_N, on
    29 x 29 pixels."""

    channels, size = 1, 29

    def __init__(self, group: str, fields: tuple[int, ...] = (24, 48, 48, 96, 96, 64)):
        from escnn import gspaces
        from escnn import nn as enn

        super().__init__()
        space = gspaces.rot2dOnR2(int(group[1:]))
        self.wrap, self.image = enn.GeometricTensor, enn.FieldType(space, [space.trivial_repr])
        layers, in_type = [], self.image
        kernels = [(7, 1), (5, 2), (5, 2), (5, 2), (5, 2), (5, 1)]
        for number, (count, (kernel, padding)) in enumerate(zip(fields, kernels)):
            out_type = enn.FieldType(space, count * [space.regular_repr])
            layers += [enn.R2Conv(in_type, out_type, kernel, padding=padding, bias=False)]
            layers += [enn.InnerBatchNorm(out_type), enn.ReLU(out_type, inplace=True)]
            if number in (1, 3):
                layers.append(enn.PointwiseAvgPoolAntialiased(out_type, sigma=0.66, stride=2))
            in_type = out_type
        layers.append(enn.PointwiseAvgPoolAntialiased(in_type, sigma=0.66, stride=1, padding=0))
        self.layers = enn.SequentialModule(*layers, enn.GroupPooling(in_type))
        self.head = nn.Sequential(nn.Linear(fields[-1], 64), nn.BatchNorm1d(64), nn.ELU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.wrap(x, self.image)).tensor.mean((2, 3)))


class WideResNet(nn.Module):
    """A pre-activation wide ResNet (Zagoruyko & Komodakis 2016) of regular fields on 32 x 32 pixels: a 3 x 3 convolution
    and three stages of `blocks` blocks, the second and third at half the size.  As in escnn's example, the network has as
    many parameters as a plain one of `planes` channels: planes / sqrt(|G|) fields."""

    channels, size = 3, 32

    def __init__(self, group: str, planes: tuple[int, ...] = (64, 128, 256), blocks: int = 1):
        from escnn import gspaces
        from escnn import nn as enn

        super().__init__()
        order = int(group[1:])
        space = gspaces.rot2dOnR2(order) if group[0] == "C" else gspaces.flipRot2dOnR2(order)
        self.wrap, self.image = enn.GeometricTensor, enn.FieldType(space, self.channels * [space.trivial_repr])
        regular = space.regular_repr
        types = [enn.FieldType(space, int(n / regular.size**0.5) * [regular]) for n in (planes[0], *planes)]
        self.stem = enn.R2Conv(self.image, types[0], 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(
            _Block(enn, types[stage if block == 0 else stage + 1], types[stage + 1], 2 if stage and block == 0 else 1)
            for stage in range(3) for block in range(blocks)
        ))  # fmt: skip
        self.norm, self.relu = enn.InnerBatchNorm(types[-1]), enn.ReLU(types[-1], inplace=True)
        self.pool, self.head = enn.GroupPooling(types[-1]), nn.Linear(len(types[-1]), 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.relu(self.norm(self.blocks(self.stem(self.wrap(x, self.image)))))
        return self.head(self.pool(maps).tensor.mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, enn, in_type, out_type, stride: int):
        super().__init__()
        self.norm1, self.relu1 = enn.InnerBatchNorm(in_type), enn.ReLU(in_type, inplace=True)
        self.conv1 = enn.R2Conv(in_type, out_type, 3, padding=1, stride=stride, bias=False)
        self.norm2, self.relu2 = enn.InnerBatchNorm(out_type), enn.ReLU(out_type, inplace=True)
        self.conv2 = enn.R2Conv(out_type, out_type, 3, padding=1, bias=False)
        same = stride == 1 and in_type == out_type
        self.shortcut = None if same else enn.R2Conv(in_type, out_type, 1, stride=stride, bias=False)

    def forward(self, x):
        y = self.relu1(self.norm1(x))
        return self.conv2(self.relu2(self.norm2(self.conv1(y)))) + (self.shortcut(y) if self.shortcut else x)


class Case(NamedTuple):
    network: type
    group: str
    batch: int

    @property
    def name(self) -> str:
        return f"{self.network.__name__} {self.group} {self.network.size}² x{self.batch}"


CASES = [Case(SteerableCNN, "C4", 8), Case(SteerableCNN, "C8", 8), Case(WideResNet, "C4", 8), Case(WideResNet, "D4", 8)]


def digits(network: nn.Module, split: str, count: int) -> tuple[Tensor, Tensor]:
    """The first images of a split of the digits that ship with the package, padded to the network's size, and their
    classes."""
    images, labels = (torch.as_tensor(array[:count]) for array in load_digits().splits[split])
    missing = network.size - images.shape[-1]
    padded = F.pad(images.float()[:, None] / 255, (missing // 2, missing - missing // 2) * 2)
    return padded.expand(-1, network.channels, -1, -1).contiguous(), labels.long()


def training_step(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, labels: Tensor) -> None:
    """Forward, backward and a step of the optimiser."""
    optimizer.zero_grad()
    F.cross_entropy(network(x), labels).backward()
    optimizer.step()


def prepared(case: Case, steps: int = 60, tested: int = 200) -> tuple[dict[str, nn.Module], dict]:
    """escnn's network, trained a little, and the converted one, when both do the same, or nothing is timed.

    Returns:
        ({contender: network}, what a row says of both: the largest relative difference of their outputs, and the
        accuracy of each on `tested` digits of the test split).
    """
    torch.manual_seed(0)
    network = case.network(case.group)
    x, labels = digits(network, "train", steps * 16)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    for batch in zip(x.split(16), labels.split(16)):
        training_step(network, optimizer, *batch)
    network.eval()
    fast, report = convert(network)
    kept = sorted({row.was.__name__ for row in report.kept if not row.was.__module__.startswith("torch.")})
    x, labels = digits(network, "test", tested)
    with torch.no_grad():
        want, got = (torch.cat([model(part) for part in x.split(50)]) for model in (network, fast))
    difference = float((got - want).abs().max() / want.abs().max())
    assert difference < 1e-4, (case.name, difference)
    right = [int((y.argmax(1) == labels).sum()) / tested for y in (want, got)]
    return {PEER: network, "converted": fast}, {
        "steps": steps, "tested": tested, "difference": difference, "accuracy": right[0], "accuracy_converted": right[1],
        "kept": kept,
    }  # fmt: skip


def _call(network: nn.Module, pass_: str, x: Tensor, labels: Tensor) -> Callable[[], object]:
    if pass_ == "training step":
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        return lambda: training_step(network, optimizer, x, labels)

    def infer():
        with torch.no_grad():
            return network(x)

    return infer


def measure(cases: list[Case], threads: list[int], repeats: int) -> list[dict]:
    """One row a case, pass, number of threads and contender."""
    keep_memory()
    rows = []
    for case in cases:
        networks, about = prepared(case)
        x, labels = digits(networks[PEER], "train", case.batch)
        for pass_ in PASSES:
            for network in networks.values():
                network.train(pass_ == "training step")
            for number in threads:
                torch.set_num_threads(number)
                calls = {name: _call(network, pass_, x, labels) for name, network in networks.items()}
                timings, _ = interleaved(calls, [PEER], repeats, budget=60)
                for name, t in timings.items():
                    times = [round(1e3 * seconds, 3) for seconds in (t.median, t.quartile1, t.quartile3)]
                    row = {"case": case.name, "pass": pass_, "threads": number, "contender": name}
                    row |= dict(zip(["median_ms", "quartile1_ms", "quartile3_ms"], times))
                    row |= {"faster": [round(1 / ratio, 2) for ratio in (t.ratio, t.ratio3, t.ratio1)]}
                    rows.append(row | {"rounds": t.rounds} | about)
                    print(rows[-1], flush=True)
    return rows


def table(rows: list[dict], about: dict) -> str:
    """The rows in Markdown."""
    lines = [
        f"{about['device']}, torch {about['torch']}, escnn {about['escnn']}, commit {str(about['commit'])[:12]}, float32.",
        f"Load of the machine {about['load'][0]} before and {about['load'][1]} after: processes that wanted one of",
        f"{about['cores']} cores, this one among them.", "",
        f"Networks of escnn, trained for {rows[0]['steps']} steps, and what gconv_ext.convert makes of them. Milliseconds are",
        "the median of interleaved rounds, quartiles in brackets; the ratio is taken round by round. «differs» is the largest",
        "difference of the outputs, relative to the largest output; accuracies, before and after, are of",
        f"{rows[0]['tested']} digits that the training did not see.", "",
        "| case | pass | threads | escnn ms | converted ms | times faster | differs | accuracy | kept |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    setting_of = operator.itemgetter("case", "pass", "threads")
    peers = {setting_of(row): row for row in rows if row["contender"] == PEER}
    for row in rows:
        if row["contender"] == PEER:
            continue
        times = [
            f"{r['median_ms']:.1f} ({r['quartile1_ms']:.1f}–{r['quartile3_ms']:.1f})"
            for r in (peers[setting_of(row)], row)
        ]
        faster = "{:.2f} ({:.2f}–{:.2f})".format(*row["faster"])
        accuracy = f"{row['accuracy']:.0%}, {row['accuracy_converted']:.0%}"
        differs, kept = f"{row['difference']:.0e}", ", ".join(row["kept"])
        lines.append(f"| {' | '.join([*map(str, setting_of(row)), *times, faster, differs, accuracy, kept])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", metavar="TEXT", default="", help="only the cases whose name contains TEXT")
    parser.add_argument("--out", type=Path, default=Path("bench/results/cpu"))
    arguments = parser.parse_args()
    try:
        import escnn
    except ImportError as error:
        parser.error(f"needs escnn, which cannot be imported: {error}")
    before = round(os.getloadavg()[0], 1)
    rows = measure([case for case in CASES if arguments.only in case.name], arguments.threads, arguments.repeats)
    about = versions() | {"escnn": escnn.__version__, "cores": len(os.sched_getaffinity(0))}
    about |= {"load": [before, round(os.getloadavg()[0], 1)]}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "convert.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    (arguments.out / "convert.md").write_text(table(rows, about))
    print(f"written: {arguments.out / 'convert.json'}, convert.md")


if __name__ == "__main__":
    main()
