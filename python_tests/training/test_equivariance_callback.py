import json

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gconv_ext import create_model, equivariance_error
from gconv_ext import nn as gnn
from gconv_ext.training.classifier import ImageClassifier
from gconv_ext.training.equivariance_callback import EquivarianceErrorPerStage, stage_errors

pytestmark = pytest.mark.filterwarnings("ignore")


def train(callback, module, size, epochs=2, **options):
    data = TensorDataset(torch.randn(8, 1, size, size), torch.arange(8) % 2)
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=[callback], accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, 4), **options)
    return trainer


def classifier(**options):
    return ImageClassifier(create_model("p4_resnet44", in_channels=1, num_classes=2, width=1, **options), 0.01, 0.0, {})


@pytest.mark.parametrize("size, exact", [(9, True), (8, False)])
def test_errors_of_every_stage_while_it_trains(size, exact):
    """Fig. 4: 0 in the stages of stride 1 at any size; everywhere, and all the time, where the condition holds."""
    callback = EquivarianceErrorPerStage(torch.randn(2, 1, size, size))
    trainer = train(callback, classifier(algorithm="irrep"), size)
    assert [row["epoch"] for row in callback.history] == [0, 1, 2]
    for row in callback.history:
        assert list(row) == ["epoch", "stem", "stage1", "stage2", "stage3", "last"]
        assert row["stem"] == row["stage1"] == 0
        assert all((row[stage] == 0) is exact for stage in ("stage2", "stage3", "last"))
    logged = {name: value.item() for name, value in trainer.callback_metrics.items() if "equivariance_error/" in name}
    del row["epoch"]
    assert logged == pytest.approx({f"equivariance_error/{stage}": error for stage, error in row.items()})
    json.dumps(callback.history)


def test_stage_errors_are_equation_14():
    network = nn.Sequential(gnn.LiftingConv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), gnn.GroupConv2d(2, 2, 3))
    network[1].eval()
    x = torch.randn(2, 1, 8, 8)
    errors = stage_errors(network, x, "C4", ["0", "2"])
    assert errors["0"] == pytest.approx(equivariance_error(network[0], x, "C4").eq14[1:].mean().item())
    assert errors["2"] == pytest.approx(equivariance_error(network, x, "C4").eq14[1:].mean().item())
    assert [m.training for m in network.modules()] == [True, True, False, True] and not network[0]._forward_hooks


def test_measured_in_eval_mode():
    network = nn.Sequential(gnn.LiftingConv2d(1, 2, 3, algorithm="irrep"), nn.Dropout(0.5), gnn.GroupBatchNorm2d(2))
    before = network[2].running_mean.clone()
    assert stage_errors(network, torch.randn(2, 1, 7, 7), "C4", ["2"]) == {"2": 0}
    assert torch.equal(network[2].running_mean, before) and network.training


def test_every_n_epochs_and_stages_by_name():
    callback = EquivarianceErrorPerStage(torch.randn(2, 1, 8, 8), "C4", ["stage2.0", "classifier"], every_n_epochs=2)
    train(callback, classifier(), 8, epochs=5)
    assert [row["epoch"] for row in callback.history] == [0, 2, 4]
    assert list(callback.history[0]) == ["epoch", "stage2.0", "classifier"] and callback.history[0]["classifier"] > 0


def test_a_resumed_run_goes_on_with_the_history(tmp_path):
    torch.manual_seed(1)
    images = torch.randn(2, 1, 8, 8)
    first = EquivarianceErrorPerStage(images, stages=["stage2"])
    train(first, classifier(), 8, epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    second = EquivarianceErrorPerStage(images, stages=["stage2"])
    train(second, classifier(), 8, epochs=2, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert second.history[:2] == first.history and [row["epoch"] for row in second.history] == [0, 1, 2]


X = torch.ones(1, 1, 8, 8)


@pytest.mark.parametrize("make, message", [
    (lambda: EquivarianceErrorPerStage(X[0]), "images must have 4 dimensions"),
    (lambda: EquivarianceErrorPerStage(X, "C3"), "unknown group 'C3'"),
    (lambda: EquivarianceErrorPerStage(X, every_n_epochs=0), "every_n_epochs must be at least 1"),
    (lambda: stage_errors(nn.ReLU(), X, "C4", ["conv"]), "stages must name submodules of ReLU, got 'conv'"),
    (lambda: EquivarianceErrorPerStage(X).on_train_start(None, nn.ReLU()), "stages must be given for ReLU"),
])  # fmt: skip
def test_bad_arguments(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
