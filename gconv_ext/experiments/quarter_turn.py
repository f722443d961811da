"""Paper 3, section 4.1 and Fig. 3: a p4 network with stride 2 learns to tell an image x from T(x), its quarter turn, at
32 x 32 pixels, and cannot at 33 x 33."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as gnn
from ..data import Digits
from ..errors import InputError
from ..exactness import exactness
from ..groups import PointGroup, transform_feature_map, transform_image
from ..training.results import append_row, versions
from ..training.runs import finished_row


@dataclass(frozen=True)
class QuarterTurnConfig:
    """One run.  The paper draws a figure of its own as x; ours is a digit in a frame of zeros.

    Attributes:
        size: height = width of the image; 28 at least.
        digit: which of the training digits x is.
        epochs, lr: of Adam; one step of both images is an epoch.
        seed: of the weights.
        algorithm: see gconv_ext.functional; with "irrep" the network is invariant to the bit where it is exact.
    """

    size: int
    digit: int = 0
    epochs: int = 200
    lr: float = 0.1
    seed: int = 0
    algorithm: str = "irrep"

    def __post_init__(self):
        for name, least in (("size", 28), ("digit", 0), ("epochs", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.lr > 0:
            raise InputError(f"lr must be positive, got {self.lr}")

    @property
    def name(self) -> str:
        return f"quarter-turn-{self.size}-seed{self.seed}"

    def network(self) -> nn.Sequential:
        """One field with k = 3, s = 2 and padding 1; mean over space, maximum over the group, two logits."""
        return nn.Sequential(
            gnn.LiftingConv2d(1, 1, 3, stride=2, padding=1, algorithm=self.algorithm), gnn.SpatialGlobalPool2d("mean"),
            gnn.GroupPool("max"), nn.Flatten(), nn.Linear(1, 2),
        )  # fmt: skip


def run(config: QuarterTurnConfig, digits: Digits, out: Path, *, resume: bool = False, **_) -> dict:
    """Trains one network on x and T(x), and appends its row to out/results.jsonl.

    Args:
        config: what to train.
        digits: the data.
        out: folder of results.
        resume: return the row of a finished run; one takes a second, and keeps no checkpoint.

    Returns:
        The row: config, data, versions, whether the network is exact at this size, epochs (one dict each); after the
        training accuracy, loss, the logits of x and T(x); and of the convolution (Fig. 3) the filter [3, 3] and its maps f(x) and T⁻¹(f(T(x))), both
        [4, H', W'], which are the same where equivariance is kept.

    Raises:
        InputError: there is no such digit; the row in `out` is of another configuration.
        OSError: `out` cannot be written.
    """
    identity = asdict(config) | {"data": digits.sha256()}
    if resume and (row := finished_row(out / "results.jsonl", config.name, identity)):
        return row
    images = digits.splits["train"][0]
    if config.digit >= len(images):
        raise InputError(f"digit must be less than the {len(images)} training digits, got {config.digit}")
    before = (config.size - 28) // 2
    after = config.size - 28 - before
    x = F.pad(torch.tensor(images[config.digit])[None, None] / 255, (before, after, before, after))
    group = PointGroup("C4")
    pair, labels = torch.cat([x, transform_image(x, group, 1)]), torch.arange(2)

    torch.manual_seed(config.seed)
    network = config.network()
    optimizer = torch.optim.Adam(network.parameters(), config.lr)
    history = []
    for epoch in range(config.epochs):
        optimizer.zero_grad()
        logits = network(pair)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        history.append({"epoch": epoch, "train_loss": loss.item(), "train_accuracy": _accuracy(logits)})
    with torch.no_grad():
        logits, maps = network(pair), network[0](pair)
        turned_back = transform_feature_map(maps[1:], group, int(group.inverse[1]))
    row = {
        "experiment": "quarter_turn",
        "name": config.name,
        "config": identity,
        "data": {"origin": digits.origin, "train": 2},
        "versions": versions(),
        "exact": exactness(network, config.size).exact,
        "epochs": history,
        "accuracy": _accuracy(logits),
        "loss": F.cross_entropy(logits, labels).item(),
        "logits": logits.tolist(),
        "filter": network.get_parameter("0.weight").detach()[0, 0].tolist(),
        "maps": {"f(x)": _rounded(maps[0]), "T⁻¹(f(T(x)))": _rounded(turned_back[0])},
        "largest_difference": (maps[:1] - turned_back).abs().max().item(),
    }
    out.mkdir(parents=True, exist_ok=True)
    append_row(out / "results.jsonl", row)
    return row


def _accuracy(logits: Tensor) -> float:
    return (logits.argmax(1) == torch.arange(2)).float().mean().item()


def _rounded(maps: Tensor) -> list:
    """The four maps of a field, with as many digits as a picture shows."""
    return maps[0].mul(1000).round().div(1000).tolist()


def table(rows: list[dict]) -> str:
    """Markdown table of finished runs."""
    lines = ["| size | exact | seed | accuracy | loss | largest difference of the maps |", "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['config']['size']} | {'yes' if row['exact'] else 'no'} | {row['config']['seed']} "
            f"| {row['accuracy']:.2f} | {row['loss']:.4f} | {row['largest_difference']:.1e} |"
        )
    return "\n".join(lines)
