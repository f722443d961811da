"""The equivariance error at several depths of a network while it trains (paper 3, Eq. 14 and Fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from ..checks import check_positive, check_tensor
from ..equivariance import equivariance_error
from ..groups import PointGroup, as_group


def stage_errors(
    network: nn.Module, images: Tensor, group: PointGroup | str, stages: Sequence[str]
) -> dict[str, float]:
    """The equivariance error of each stage's result, in eval mode:

        ε = (1 / ijk) sqrt(Σ_{ijk} |f(g·x) − g·f(x)|²)                                    (paper 3, Eq. 14)

    averaged over images, channels and the elements g other than the identity.  Exactly 0 for strict layers with
    algorithm="irrep" wherever gconv_ext.exactness calls all layers up to the stage exact.

    Args:
        network: called on the images; its modes are as before afterwards.
        images: [B, C, H, W].
        group: a PointGroup or its name.
        stages: names of submodules whose result is an image, a feature map or an invariant vector.

    Returns:
        {stage: error}.

    Raises:
        TypeError, ValueError: no such stage, or as for equivariance_error.
    """
    modules, group = dict(network.named_modules()), as_group(group)
    for stage in stages:
        if stage not in modules:
            raise ValueError(f"stages must name submodules of {type(network).__name__}, got {stage!r}")
    modes = [(module, module.training) for module in modules.values()]
    network.eval()
    try:
        return {stage: _error(network, modules[stage], images, group) for stage in stages}
    finally:
        for module, training in modes:
            module.training = training


def _error(network: nn.Module, stage: nn.Module, images: Tensor, group: PointGroup) -> float:
    results = []
    hook = stage.register_forward_hook(lambda module, inputs, result: results.append(result))

    def to_stage(x: Tensor) -> Tensor:
        network(x)
        return results.pop()

    try:
        eq14 = equivariance_error(to_stage, images, group).eq14
    finally:
        hook.remove()
    return (eq14[1:].sum() / max(1, group.order - 1)).item()


class EquivarianceErrorPerStage(Callback):
    """Measures stage_errors before training and after every epoch, keeps and logs them as "equivariance_error/STAGE".

    Args:
        images: [B, C, H, W], the same at every time.
        group: a PointGroup or its name.
        stages: names of submodules of the network, which is the LightningModule's `model` where it has one; without
            them, those that the network's attribute `stages` names, as paper 3's networks have it.
        every_n_epochs: how often.

    Attributes:
        history: a dict for each time: "epoch", the number of epochs trained, and an error for each stage.  Goes into
            checkpoints.
    """

    def __init__(
        self, images: Tensor, group: PointGroup | str = "C4", stages: Sequence[str] | None = None,
        every_n_epochs: int = 1,
    ):  # fmt: skip
        check_tensor("images", images, 4, "[B, C, H, W]")
        self.images, self.group, self.stages = images, as_group(group), stages
        self.every_n_epochs = check_positive("every_n_epochs", every_n_epochs)
        self.history: list[dict] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self.history:  # else it goes on from a checkpoint
            self._measure(module, 0)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0:
            errors = self._measure(module, epoch)
            module.log_dict({f"equivariance_error/{stage}": error for stage, error in errors.items()})

    def _measure(self, module: pl.LightningModule, epoch: int) -> dict[str, float]:
        network = getattr(module, "model", module)
        stages = getattr(network, "stages", None) if self.stages is None else self.stages
        if not stages:
            raise ValueError(f"stages must be given for {type(network).__name__}, which names none itself")
        errors = stage_errors(network, self.images.to(module.device), self.group, stages)
        self.history.append({"epoch": epoch, **errors})
        return errors

    def state_dict(self) -> dict:
        return {"history": self.history}

    def load_state_dict(self, state: dict) -> None:
        self.history = state["history"]
