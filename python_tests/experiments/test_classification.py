"""Papers 2 and 4's tables at tiny size: every model trains, what a row says, resumed runs, refusals."""

import json
from dataclasses import replace

import pytest
import torch
from data import test_cifar  # python_tests/data

from gconv_ext.data import load_digits, load_images
from gconv_ext.errors import InputError
from gconv_ext.experiments.classification import GROUPS, ClassificationConfig, _Classifier, run
from gconv_ext.training.results import read_rows

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = dict(epochs=1, warmup=0, batch_size=8, train_images=16, validation_images=8, test_images=10, width=2, elements=2)


def trained(config, data, out, **options):
    return run(config, data, out, accelerator="cpu", **options)


@pytest.mark.parametrize("group, model", [
    ("T2", "soft-translation"), ("SE2", "mlp-ending"), ("E2", "partial"), ("SE2", "augerino"),
])  # fmt: skip
def test_a_row(tmp_path, group, model):
    config = ClassificationConfig(model, group=group, **TINY | dict(elements=1 if group == "T2" else 2))
    row = trained(config, load_digits(), tmp_path)
    assert row["data"] == {"origin": load_digits().origin, "train": 16, "validation": 8, "test": 10}
    assert 0 <= row["test_accuracy"] <= 1 and round(10 * row["test_accuracy"]) == pytest.approx(10 * row["test_accuracy"])
    dense = [] if model == "soft-translation" else ["dense"]
    assert list(row["steps_per_second"]) == ["reference", *dense, "auto"]
    assert bool(row["subsets"]) is (model in ("partial", "augerino"))
    assert all((layer["mirror"] is None) is (group != "E2") for layer in row["subsets"])
    assert bool(row["soft_frequencies"]) is model.startswith("soft-")
    assert read_rows(tmp_path / "results.jsonl") == json.loads(json.dumps([row]))
    assert trained(config, load_digits(), tmp_path, resume=True) == json.loads(json.dumps(row))
    with pytest.raises(InputError, match="lr = 0.001 there and 0.1 here"):
        trained(replace(config, lr=0.1), load_digits(), tmp_path, resume=True)


def test_learned_frequencies():
    """ω' of the angle is learned and held down by λ; where it is fixed it stays as it is, in every other axis 0."""
    config = ClassificationConfig("soft-rotation", learn_soft_frequency=True, alpha=3.0, soft_frequency=0.25, **TINY)
    module = _Classifier(config, {})
    frequencies = [layer.frequency for name, layer in module.model.named_modules() if name.endswith("kernel.absolute")]
    assert all(torch.equal(f, torch.tensor([0, 0, 0.25])) and f.requires_grad for f in frequencies)
    assert module._penalty().item() == pytest.approx(len(frequencies) * 0.25**2) and module.alpha == 3
    (module.alpha * module._penalty()).backward()
    assert all(f.grad.tolist() == pytest.approx([0, 0, 3 * 2 * 0.25]) for f in frequencies)
    fixed = _Classifier(replace(config, learn_soft_frequency=False), {})
    assert not any(p.requires_grad for name, p in fixed.model.named_parameters() if name.endswith("absolute.frequency"))


def test_cnn13_on_cifar(tmp_path):
    """Augmented, with the distributions' own learning rate."""
    test_cifar.write(tmp_path / "files", "PNG")
    data = load_images("cifar10", tmp_path / "files")
    config = ClassificationConfig("partial", architecture="cnn13", dataset="cifar10", augment=True, **TINY)
    row = trained(config, data, tmp_path / "out")
    assert row["name"] == "cnn13-cifar10-SE2-2-partial-augmented-seed0" and len(row["subsets"]) == 8
    module = _Classifier(config, {})
    module.trainer = type("Trainer", (), {"estimated_stepping_batches": 10})()
    (optimizer,), _ = module.configure_optimizers()
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.001, 1e-4]
    assert len(optimizer.param_groups[1]["params"]) == 8


def test_rotated_digits_are_rotated_in_every_split(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("gconv_ext.experiments.classification.TurnedImages", lambda *args: seen.append(args[2:]) or exit())
    for rotation in ("none", "uniform"):
        with pytest.raises(SystemExit):
            trained(ClassificationConfig("strict", rotation=rotation, **TINY), load_digits(), tmp_path)
    assert seen == [("train", "none"), ("train", "uniform")]


@pytest.mark.parametrize("change, says", [
    (dict(model="soft"), "model must be one of strict"), (dict(group="SO2"), "group must be one of T2, SE2, E2"),
    (dict(group="T2", elements=1, model="partial"), "model must be one of strict, soft-none, soft-translation for group T2"),
    (dict(group="T2"), "elements must be 1 for group T2, got 2"), (dict(dataset="imagenet"), "dataset must be one of mnist"),
    (dict(group="E2", model="soft-rotation"), "model must be one of strict, .* for group E2"),
    (dict(architecture="cnn13", model="t2-ending"), "model must be one of strict, partial, augerino for architecture cnn13"),
    (dict(epochs=0), "epochs must be positive, got 0"), (dict(alpha=-1), "alpha must not be negative, got -1"),
    (dict(rotation="normal"), "rotation must be one of none, uniform"),
])  # fmt: skip
def test_refusals(change, says):
    with pytest.raises(InputError, match=says):
        ClassificationConfig(**dict(model="strict") | TINY | change)


def test_names_tell_runs_apart():
    configs = [
        ClassificationConfig(model, group=group, elements=1 if group == "T2" else 2, soft_frequency=f, learn_soft_frequency=learn, alpha=alpha)
        for group, models in GROUPS.items() for model in models if model.startswith("soft-") and model != "soft-none"
        for f in (0.25, 0.5) for learn in (False, True) for alpha in (0.1, 0.2) if learn or alpha == 0.1
    ]  # fmt: skip
    fixed = [config for config in configs if not config.learn_soft_frequency]
    assert len({config.name for config in fixed}) == len(fixed)
