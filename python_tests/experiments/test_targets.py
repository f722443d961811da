"""The files of the papers' tables and figures, and what they come to at a scale."""

import pytest

from gconv_ext.cli import main
from gconv_ext.experiments.report_pictures import PICTURES
from gconv_ext.experiments.targets import EXPERIMENTS, check_scale, expand, load_target, shrunk, target_names


@pytest.mark.parametrize("name", target_names())
@pytest.mark.parametrize("scale", [1, 0.1, 0.01])
def test_every_file_is_accepted(name, scale):
    target = load_target(name)
    runs = expand(target, 55_000, scale=scale)
    assert len(runs) == len(target.grid) * shrunk(target.seeds, scale) > 0
    distinct = {run.config for run in runs}  # at the least scale 60 epochs and 20 come to one
    assert len(distinct) == len(runs) or scale == 0.01
    assert all(set(settings) == set(target.grid[0]) for settings in target.grid)
    assert target.lines in target.varying and (target.figures or target.curves or target.pictures)
    assert set(target.pictures) <= set(PICTURES)
    experiment = EXPERIMENTS[target.experiment]
    for run in runs:
        assert all(getattr(run.config, name) == shrunk(run.settings[name], scale) for name in experiment.scaled)
        if experiment.images:
            full = run.settings.get(experiment.images, 55_000)
            batch = max(shrunk(run.settings["batch_size"], scale), 16)
            assert run.config.batch_size == batch
            assert run.config.lr == pytest.approx(run.settings["lr"] * (batch / run.settings["batch_size"]) ** 0.5)
            images = max(shrunk(full, scale), batch)
            assert getattr(run.config, experiment.images) == images
            if "distribution_lr" in run.settings:  # subsets can go as far as at full scale: learning rate times steps
                full_steps = run.settings["epochs"] * full / run.settings["batch_size"]
                reach = run.config.distribution_lr * run.config.epochs * images / batch
                assert reach == pytest.approx(run.settings["distribution_lr"] * full_steps)
    if target.results:  # some of its runs are another target's
        other = expand(load_target(target.results), 55_000, scale=scale)
        assert distinct & {run.config for run in other} and target.experiment == load_target(target.results).experiment


@pytest.mark.parametrize("name", [name for name in target_names() if load_target(name).comparison])
def test_comparisons_name_what_there_is(name):
    target = load_target(name)
    asked = target.comparison
    assert asked["figure"] in target.figures and {asked["of"], asked["with"]} <= {s[asked["field"]] for s in target.grid}
    assert asked.get("choose", asked["field"]) in target.varying


@pytest.mark.parametrize("name", [name for name in target_names() if load_target(name).published["rows"]])
def test_published_numbers(name):
    target = load_target(name)
    columns, rows = target.published["columns"], target.published["rows"]
    assert all(len(row) == len(columns) for row in rows)
    for settings in target.grid:
        for figure in target.figures:
            if figure in columns:
                assert target.published_figure(settings, figure) is not None, settings
    own = [c for c in columns if c not in target.figures]
    assert all(any(all(s[c] == dict(zip(columns, row))[c] for c in own) for s in target.grid) for row in rows)


def test_paper_1s_table():
    """Seven settings of the noise, three networks, with its own numbers at the places that matter."""
    target = load_target("paper1-table1")
    assert len(target.grid) == 21 and len(expand(target, 55_000)) == 63 and len(expand(target, 5_000, scale=0.2)) == 21
    numbers = {(s["noise"], s["sigma"], s["model"]): [target.published_figure(s, f)[0] for f in target.figures] for s in target.grid}
    assert numbers["aniso", 0.3, "relaxed"] == [91.64, 75.74] and numbers["iso", 0.1, "p4"] == [96.53, 53.59]
    assert numbers["none", 0.1, "plain"] == [92.86, 92.83]
    # The paper's finding: p4 is ahead of both others on noisy digits, but for isotropic noise of 0.3.
    ahead = [key for key in numbers if key[2] == "relaxed" and numbers[key][0] > numbers[(*key[:2], "p4")][0]]
    assert ahead == [("iso", 0.3, "relaxed")]
    config = expand(target, 55_000)[0].config
    assert (config.epochs, config.batch_size, config.lr, config.alpha, config.train_digits) == (20, 64, 0.002, 1e-4, 55_000)


def test_scale():
    assert [shrunk(100, scale) for scale in (1, 0.5, 0.07, 0.001)] == [100, 50, 7, 1]
    assert shrunk(20, 0.15) == 3 and shrunk(3, 0.2) == 1 and shrunk(55_000, 0.2) == 11_000
    target = load_target("paper1-table1")
    least = expand(target, 5_000, scale=0.001)
    assert len(least) == 21 and {(run.config.train_digits, run.config.epochs, run.config.batch_size) for run in least} == {(16, 1, 16)}
    assert len(expand(target, 5_000, scale=0.001, seeds=2)) == 42
    assert [run.config.seed for run in expand(target, 5_000, scale=0.5)] == [0] * 21 + [1] * 21
    for scale in (0, -1, 1.01, float("nan")):
        with pytest.raises(ValueError, match="--scale must be above 0 and at most 1"):
            check_scale(scale)


def test_list_and_errors(capsys):
    assert main(["reproduce", "--list", "--scale", "0.2", "--seeds", "3"]) == 0
    assert any(line.split()[:3] == ["paper1-table1", "63", "runs"] for line in capsys.readouterr().out.splitlines())
    for options, message in [
        (["paper1-tabel1"], "unknown target 'paper1-tabel1'; the nearest are paper1-table1"),
        (["paper1-table1", "--scale", "2"], "--scale must be above 0 and at most 1, got 2"),
        (["paper1-table1", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["paper1-table1", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["paper1-table1", "--data-dir", "/nowhere"], "--download fetches MNIST's four files with torchvision"),
        ([], "name a TARGET, or give --list"),
    ]:
        assert main(["reproduce", *options]) == 2
        errors = capsys.readouterr().err
        assert message in errors and len(errors.strip().splitlines()) == 1


def test_paper_3s_table():
    """Its networks, sizes and numbers; as many digits as the published run has, and no more than there are."""
    target = load_target("paper3-table1")
    numbers = {}
    for settings in target.grid:
        figure = "test_rotated_accuracy" if settings["rotation"] == "uniform" else "test_accuracy"
        numbers[settings["model"], settings["size"], settings["rotation"]] = target.published_figure(settings, figure)
    assert numbers == {
        ("z2cnn", 28, "none"): (98.47, 0.17), ("z2cnn", 28, "uniform"): (91.60, 1.25),
        ("p4cnn", 27, "none"): (98.52, 0.26), ("p4cnn", 27, "uniform"): (96.92, 0.27),
        ("p4cnn", 28, "none"): (97.69, 0.17), ("p4cnn", 28, "uniform"): (96.89, 0.21),
        ("p4cnn", 29, "none"): (98.42, 0.25), ("p4cnn", 29, "uniform"): (96.87, 0.25),
    }  # fmt: skip
    config = expand(target, 55_000)[0].config
    assert (config.epochs, config.batch_size, config.lr, config.train_images) == (50, 256, 0.01, 8_000)
    assert expand(target, 55_000, scale=0.5)[0].config.train_images == 4_000
    assert expand(target, 5_000, scale=0.5)[0].config.train_images == 2_500
    assert {run.config.sigma for run in expand(load_target("paper3-fig6"), 55_000)} == {20.0, 40.0}


def test_what_is_always_the_same_is_not_scaled():
    runs = expand(load_target("paper3-fig3"), 55_000, scale=0.01, seeds=1)
    assert [(run.config.size, run.config.epochs) for run in runs] == [(32, 200), (33, 200)]
