"""The networks with continuous kernels of papers 2 and 4 by name, and how both papers train them."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn

from ..models import create_model
from ..nn import Augerino
from ..nn.distributions import ElementDistribution, distribution_parameters
from ..training.classifier import ImageClassifier

# Paper 4's network: its options.
MODELS: dict[str, dict[str, Any]] = {
    "strict": dict(partial=False),
    "partial": dict(partial=True),
    "t2-ending": dict(partial=False, ending="T2"),
    "mlp-ending": dict(partial=False, ending="MLP"),
    "augerino": dict(group="T2"),
}
# Paper 2's network: what of it is soft.
NONSTATIONARY = {"soft-none": None, "soft-rotation": "rotation", "soft-translation": "translation", "soft-both": "both"}


def make_network(
    network: str, model: str, group: str, elements: int, *, soft_options: dict | None = None, **options
) -> nn.Module:
    """A network of either paper.

    Args:
        network: "ckresnet", or for paper 4's models "cnn13".
        model: one of MODELS or NONSTATIONARY.
        group, elements: of its layers; of the images for "augerino", whose network has translations alone.
        soft_options: of models.NonstationaryCKResNet alone.
        **options: of every network; see create_model.
    """
    if model in NONSTATIONARY:
        return create_model(
            "nonstationary_ckresnet", group=group, elements=elements, soft=NONSTATIONARY[model],
            **options | (soft_options or {}),
        )  # fmt: skip
    options |= MODELS[model]
    if model == "augerino":
        return Augerino(create_model(f"partial_{network}", **options), group, elements)
    return create_model(f"partial_{network}", group=group, elements=elements, **options)


class ContinuousClassifier(ImageClassifier):
    """ImageClassifier with a learning rate of their own for the distributions, a warm-up and a cosine.

    Args:
        config: a configuration with `network()`, lr, alpha, warmup, epochs and distribution_lr.  alpha weighs the
            network's equivariance penalty, or ‖ω'‖² where ω' is learned (paper 2's λ).
        identity: what identifies the run.
    """

    def __init__(self, config, identity: dict):
        super().__init__(config.network(), config.lr, config.alpha, identity)
        self.settings = config

    def _penalty(self) -> Tensor:
        penalty = getattr(self.model, "soft_frequency_penalty", None)
        return penalty() if penalty else super()._penalty()

    def configure_optimizers(self):
        distributions = distribution_parameters(self.model)
        ids = {id(p) for p in distributions}
        groups = [{"params": [p for p in self.parameters() if id(p) not in ids]}]
        if distributions:
            groups.append({"params": distributions, "lr": self.settings.distribution_lr})
        optimizer = torch.optim.Adam(groups, lr=self.lr)
        steps = self.trainer.estimated_stepping_batches
        warm = self.settings.warmup * steps // self.settings.epochs

        def factor(step: int) -> float:
            return (step + 1) / warm if step < warm else (1 + cos(pi * (step - warm) / max(1, steps - warm))) / 2

        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor), "interval": "step"}]


def subsets(model: nn.Module) -> list[dict]:
    """What each distribution of a network has learned: the share of the circle, the probability of the mirrors."""
    return [
        {
            "layer": name.removesuffix(".distribution"),
            "extent": module.extent.item(),
            "mirror": None if module.kept_mirror is None else module.kept_mirror.probability.item(),
        }
        for name, module in model.named_modules()
        if isinstance(module, ElementDistribution) and module.learned
    ]
