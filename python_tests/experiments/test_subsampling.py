"""Paper 3's experiments at tiny size: what a row says, what is turned and how, resumed runs, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from data import test_cifar, test_pcam  # python_tests/data

from gconv_ext.data import LabelledImages, load_digits, load_images
from gconv_ext.errors import InputError
from gconv_ext.experiments.subsampling import _Classifier, _tested, run, table
from gconv_ext.experiments.subsampling_config import MODELS, SubsamplingConfig
from gconv_ext.experiments.turned_images import TurnedImages
from gconv_ext.training.fit import read_checkpoint
from gconv_ext.training.results import read_rows

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = dict(epochs=2, batch_size=16, angles=4, train_images=64, validation_images=20, test_images=24, width=2)


def trained(config, data, out, **options):
    return run(config, data, out, accelerator="cpu", **options)


@pytest.mark.parametrize("size, exact", [(28, True), (27, False)])
def test_a_row(tmp_path, size, exact):
    """Exact at 28: the same answers at every quarter turn and no error at any stage, during the whole training."""
    config = SubsamplingConfig("p4cnn", size=size, algorithm="irrep", **TINY)
    row = trained(config, load_digits(), tmp_path)
    assert row["name"] == f"p4cnn-{size}-mnist-none-width2-seed0" and row["exact"] is exact
    assert row["data"] == {"origin": load_digits().origin, "train": 64, "validation": 20, "test": 24}
    assert [epoch["epoch"] for epoch in row["epochs"]] == [0, 1]
    errors = row["equivariance_errors"]
    assert list(errors[0]) == ["epoch", *(f"layer{n}" for n in range(1, 8))]
    assert [row["epoch"] for row in errors] == [0, 1, 2]
    assert all(all((row[f"layer{n}"] == 0) is exact for n in range(2, 8)) and row["layer1"] == 0 for row in errors[1:])
    curve = row["test_accuracy_by_angle"]
    assert curve["degrees"] == [0, 90, 180, 270] and curve["accuracy"][0] == row["test_accuracy"]
    assert row["test_turned_accuracy"] == pytest.approx(sum(curve["accuracy"]) / 4)
    if exact:
        assert len(set(curve["accuracy"])) == 1
    assert list(row["steps_per_second"]) == ["reference", "dense", "irrep"]
    assert read_rows(tmp_path / "results.jsonl") == json.loads(json.dumps([row]))
    assert f"| mnist | upright | p4cnn | {size} | {'yes' if exact else 'no'} | 0 |" in table([row])


def test_resumed_as_if_never_interrupted(tmp_path, monkeypatch):
    """Dropout, augmentation and the record of the stages included."""
    config = SubsamplingConfig("p4cnn", rotation="normal", crop_padding=2, flip=True, **TINY)
    whole = trained(config, load_digits(), tmp_path / "whole")

    def interrupted(module, *_):
        if module.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="--resume"):
        patch.setattr(_Classifier, "on_train_batch_end", interrupted)
        trained(config, load_digits(), tmp_path / "parts")
    assert len(read_checkpoint(tmp_path / "parts" / config.name / "last.ckpt")["history"]) == 1
    with pytest.raises(InputError, match="is there already; give --resume"):
        trained(config, load_digits(), tmp_path / "parts")
    parts = trained(config, load_digits(), tmp_path / "parts", resume=True)
    for row in (whole, parts):
        del row["seconds_per_epoch"], row["steps_per_second"]
        for epoch in row["epochs"]:
            del epoch["train_seconds"]
    assert parts == whole
    again = trained(config, load_digits(), tmp_path / "parts", resume=True)
    assert again["epochs"][1]["train_loss"] == whole["epochs"][1]["train_loss"]
    assert len(read_rows(tmp_path / "parts" / "results.jsonl")) == 1
    with pytest.raises(InputError, match="lr = 0.01 there and 0.1 here"):
        trained(replace(config, lr=0.1), load_digits(), tmp_path / "parts", resume=True)


@pytest.mark.parametrize("recipe, optimizer, rates", [
    ("halving", "Adam", [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 16, 1 / 16]),
    ("sgd", "SGD", [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]), ("one-cycle", "Adam", None),
])  # fmt: skip
def test_recipes(recipe, optimizer, rates):
    """The paper's 50 epochs halve the rate every 10, ImageNet's 90 take a tenth of it every 30."""
    module = _Classifier(SubsamplingConfig("z2cnn", recipe=recipe, lr=0.5, weight_decay=0.01, width=2), {})
    module.trainer = type("Trainer", (), {"estimated_stepping_batches": 10})()
    (made,), (schedule,) = module.configure_optimizers()
    assert type(made).__name__ == optimizer and made.param_groups[0]["weight_decay"] == 0.01
    assert made.param_groups[0].get("momentum") == (0.9 if recipe == "sgd" else None)
    found = []
    for _ in range(10):
        found.append(made.param_groups[0]["lr"] / 0.5)
        made.step()
        schedule["scheduler"].step()
    if rates:
        assert found == pytest.approx(rates)
    else:  # up for 30% of the steps, then down to nothing
        assert max(found) == pytest.approx(1) and found.index(max(found)) == 2 and found[-1] < 1e-3


def test_test_figures():
    """A network that calls a bright upper half 1, on images that are so: right upright, wrong upside down."""

    class Upper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))  # tells the device

        def forward(self, x):
            return F.one_hot((x[:, 0, :14].sum((1, 2)) > x[:, 0, 14:].sum((1, 2)) + 1e-2).long(), 10)

    images = np.zeros((40, 28, 28), np.uint8)
    images[:, :14] = 255
    splits = {split: (images, np.ones(40, np.uint8)) for split in ("train", "validation", "test")}
    data = LabelledImages(splits, "halves")
    config = SubsamplingConfig("p4cnn", angles=8)
    test = TurnedImages(config, data, "test", "uniform")
    found = _tested(config, Upper(), test, 0)
    assert found["test_accuracy_by_angle"] == {
        "degrees": [0, 45, 90, 135, 180, 225, 270, 315], "accuracy": [1, 1, 0, 0, 0, 0, 0, 1]
    }  # fmt: skip
    assert found["test_accuracy"] == 1 and found["test_turned_accuracy"] == 0.25
    right = (test.degrees < 90) | (test.degrees > 270)
    assert found["test_rotated_accuracy"] == pytest.approx(right.float().mean().item())

    data.splits["test"][1][::2] = 0  # at each angle one image alone, the first, which is wrong where it was right
    some = _tested(replace(config, angle_images=1), Upper(), TurnedImages(config, data, "test", "uniform"), 0)
    assert some["test_accuracy"] == 0.5 and some["test_accuracy_by_angle"]["accuracy"] == [0, 0, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("model, size", [("p4_resnet44", 33), ("p4m_resnet18", 32), ("z2_resnet44", 33)])
def test_residual_networks_on_cifar(tmp_path, model, size):
    """Fig. 4's record; exact at 33."""
    test_cifar.write(tmp_path / "files", "PNG")
    data = load_images("cifar10", tmp_path / "files")
    config = SubsamplingConfig(
        model, size=size, dataset="cifar10", recipe="one-cycle", crop_padding=4, flip=True, circle_crop=False,
        epochs=1, batch_size=4, angles=4, train_images=8, width=1,
    )  # fmt: skip
    row = trained(config, data, tmp_path / "out")
    assert row["data"] == {"origin": "cifar10 from PNG files", "train": 8, "validation": 2, "test": 6}
    if model == "z2_resnet44":
        assert row["exact"] is row["equivariance_errors"] is None
    else:
        assert row["exact"] is (size == 33) and len(row["equivariance_errors"]) == 2
        assert list(row["equivariance_errors"][0])[1:3] == ["stem", "stage1"]


def test_images_that_stay_in_their_files(tmp_path):
    test_pcam.write(tmp_path / "files")
    config = SubsamplingConfig("p4_resnet44", size=17, dataset="pcam", epochs=1, batch_size=2, angles=4, width=1)
    row = trained(config, load_images("pcam", tmp_path / "files"), tmp_path / "out")
    assert row["data"] == {"origin": "PatchCamelyon from HDF5 files", "train": 6, "validation": 3, "test": 2}


@pytest.mark.parametrize("change, message", [
    (dict(model="cnn"), "model must be one of z2cnn, p4cnn"), (dict(dataset="svhn"), "dataset must be one of mnist"),
    (dict(rotation="all"), "rotation must be one of none, uniform, normal"),
    (dict(recipe="lbfgs"), "recipe must be one of"),
    (dict(size=0), "size must be positive"), (dict(angles=6), "angles must be a multiple of 4, .* got 6"),
    (dict(crop_padding=-1), "crop_padding must not be negative"), (dict(sigma=-1.0), "sigma must not be negative"),
    (dict(model="z2cnn", algorithm="irrep"), "algorithm must be 'auto' for model z2cnn, got 'irrep'"),
])  # fmt: skip
def test_bad_configurations(change, message):
    with pytest.raises(InputError, match=message):
        SubsamplingConfig(**(dict(model="p4cnn") | change))


@pytest.mark.parametrize("change, message", [
    (dict(dataset="cifar10"), "the data must be cifar10, with 3 channels, got images with 1"),
    (dict(train_images=100), "batch_size must be at most the 100 training images, got 256"),
])  # fmt: skip
def test_data_that_do_not_fit(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        trained(SubsamplingConfig(**(dict(model="z2cnn", width=1) | change)), load_digits(), tmp_path)
    assert not (tmp_path / "results.jsonl").exists()


def test_every_network():
    for model in MODELS:
        assert SubsamplingConfig(model, width=1).network()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
