"""gconv-ext search noise: which trials there are, what is kept, how they are ranked, and that the test split stays
unread."""

import json

import pytest

from gconv_ext.cli import main
from gconv_ext.data import load_digits
from gconv_ext.data.digits import Digits
from gconv_ext.errors import InputError
from gconv_ext.experiments import noise, noise_search
from gconv_ext.experiments.noise_config import NoiseConfig
from gconv_ext.training import runs
from gconv_ext.training.results import read_rows

BASE = NoiseConfig("relaxed", epochs=2, batch_size=16)


@pytest.fixture(scope="module")
def digits():
    splits = load_digits().splits
    sizes = {"train": 48, "validation": 20, "test": 10}
    return Digits({split: tuple(array[:count] for array in splits[split]) for split, count in sizes.items()}, "a few")


@pytest.fixture
def trials():
    return noise_search.settings(BASE, [0.0, 1e-2], [2], [2], [0])


def search(trials, digits, out, **options):
    return noise_search.search(trials, digits, out, accelerator="cpu", **options)


def figures(rows):
    """Rows without times and versions."""
    rows = json.loads(json.dumps(rows))
    for row in rows:
        del row["versions"]
        for epoch in row["epochs"]:
            del epoch["train_seconds"]
    return rows


def test_trials_are_the_grid_or_some_of_it():
    grid = noise_search.settings(BASE, [0.0, 1.0], [1, 3], [2, 4, 6], [5, 7])
    found = {(c.alpha, c.num_filter_banks, c.width, c.seed) for c in grid}
    assert len(grid) == 24 == len(found) and {(1.0, 3, 6, 7), (0.0, 1, 2, 5)} < found
    assert all(c.epochs == 2 and c.model == "relaxed" for c in grid)
    assert len({noise_search.trial_name(c) for c in grid}) == 24

    def drawn(draw_seed):
        return noise_search.settings(BASE, [0.0, 1.0], [1, 3], [2, 4, 6], [5, 7], trials=5, draw_seed=draw_seed)

    assert len(set(drawn(0))) == 10 and set(drawn(0)) < set(grid)
    assert drawn(0) == drawn(0) and drawn(0) != drawn(1)


@pytest.mark.parametrize("arguments, options, message", [
    (([0.0, 0.0], [1], [2], [0]), {}, "alpha must be given once for each value, got 0.0 0.0"),
    (([0.0], [1], [2], [0, 0]), {}, "seed must be given once for each value, got 0 0"),
    (([-1.0], [1], [2], [0]), {}, "alpha must not be negative, got -1.0"),
    (([0.0], [1], [0], [0]), {}, "width must be positive, got 0"),
    (([0.0], [1], [2, 3], [0]), dict(trials=3), "trials must be from 1 to the 2 combinations, got 3"),
    (([0.0], [1], [2], [0]), dict(trials=0), "trials must be from 1 to the 1 combinations, got 0"),
])  # fmt: skip
def test_refused_settings(arguments, options, message):
    with pytest.raises(InputError) as error:
        noise_search.settings(BASE, *arguments, **options)
    assert message in str(error.value)


def test_strict_networks_have_no_alpha():
    strict = NoiseConfig("p4")
    assert len(noise_search.settings(strict, [1e-4], [3], [4, 8], [0])) == 2
    with pytest.raises(InputError, match="alpha and num_filter_banks are of the relaxed networks"):
        noise_search.settings(strict, [1e-4, 1e-3], [3], [4], [0])


def row(alpha, accuracy, loss, seed=0):
    config = {"alpha": alpha, "num_filter_banks": 3, "width": 6, "seed": seed}
    epochs = [{"train_seconds": 1.0}, {"train_seconds": 3.0}]
    figures = {"validation_accuracy": accuracy, "validation_loss": loss}
    return {"config": config, "parameters": 1234, "epochs": epochs, **figures}


def test_ranking_averages_seeds_and_breaks_ties_by_the_loss():
    rows = [row(0.1, 0.9, 1.0), row(0.1, 0.5, 2.0, seed=1), row(0.2, 0.7, 1.2), row(0.3, 0.8, 3.0)]
    ranked = noise_search.ranking(rows)
    assert [one["alpha"] for one in ranked] == [0.3, 0.2, 0.1]  # 0.2 and 0.1 tie at 0.7; losses 1.2 and 1.5
    assert ranked[2] == {
        "alpha": 0.1, "num_filter_banks": 3, "width": 6, "parameters": 1234, "seeds": 2, "accuracy": pytest.approx(0.7),
        "loss": 1.5, "spread": pytest.approx(0.2), "seconds_per_epoch": 2.0,
    }  # fmt: skip
    assert noise_search.table(rows).splitlines()[2] == "| 0.3 | 3 | 6 | 1,234 | 1 | 80.00 | 0.00 | 3.0000 | 2.0 |"


def test_a_search_is_repeatable_and_resumes(trials, digits, tmp_path, monkeypatch):
    whole = search(trials, digits, tmp_path / "a")
    assert read_rows(tmp_path / "a" / "search.jsonl") == whole
    assert [(r["config"]["alpha"], len(r["epochs"])) for r in whole] == [(0.0, 2), (1e-2, 2)]
    assert all(r["validation_accuracy"] == r["epochs"][-1]["validation_accuracy"] for r in whole)
    assert whole[0]["epochs"][-1]["equivariance_penalty"] != whole[1]["epochs"][-1]["equivariance_penalty"]

    # Stopped after the second trial's training, before its row is written.
    append, calls = noise_search.append_row, []

    def stop_at_the_second(path, row):
        calls.append(row)
        if len(calls) == 2:
            raise KeyboardInterrupt
        append(path, row)

    monkeypatch.setattr(noise_search, "append_row", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        search(trials, digits, tmp_path / "b")
    monkeypatch.setattr(noise_search, "append_row", append)
    assert len(read_rows(tmp_path / "b" / "search.jsonl")) == 1
    with pytest.raises(InputError, match="search.jsonl is there already; give --resume"):
        search(trials, digits, tmp_path / "b")
    trained = []
    fit = runs.fit
    monkeypatch.setattr(runs, "fit", lambda m, *a, **k: trained.append(m.config["alpha"]) or fit(m, *a, **k))
    resumed = search(trials, digits, tmp_path / "b", resume=True)
    assert trained == [1e-2] and figures(resumed) == figures(whole)
    assert search(trials, digits, tmp_path / "b", resume=True) == resumed and trained == [1e-2]


def test_the_test_split_is_not_read(trials, digits, tmp_path, monkeypatch):
    handed, drawn = [], []
    train, split = noise_search.train_network, noise.noisy_split
    monkeypatch.setattr(noise_search, "train_network", lambda c, d, *a, **k: handed.append(d) or train(c, d, *a, **k))
    monkeypatch.setattr(noise, "noisy_split", lambda images, name, *a: drawn.append(name) or split(images, name, *a))
    search(trials[:1], digits, tmp_path)
    assert [set(one.splits) for one in handed] == [{"train", "validation"}] and drawn == ["train", "validation"]


def test_command_line(tmp_path, capsys):
    command = [
        "search", "noise", "--train-digits", "16", "--batch-size", "16", "--epochs", "1", "--noise", "radial",
        "--correlation", "1.5", "--num-filter-banks", "1", "--width", "2", "3", "--alpha", "0.5",
        "--accelerator", "cpu", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr().out
    rows = read_rows(tmp_path / "out" / "search.jsonl")
    assert [(r["config"]["width"], r["config"]["noise"], r["config"]["correlation"]) for r in rows] == [
        (2, "radial", 1.5), (3, "radial", 1.5),
    ]  # fmt: skip
    assert (tmp_path / "out" / "search.md").read_text().strip() in said
    best = max(rows, key=lambda r: (r["validation_accuracy"], -r["validation_loss"]))["config"]["width"]
    assert f"--model relaxed --alpha 0.5 --num-filter-banks 1 --width {best}" in said
    assert main(command) == 2 and "search.jsonl is there already" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0 and capsys.readouterr().out.count("finished already") == 2
    assert main([*command[:-1], str(tmp_path / "other"), "--model", "p4", "--alpha", "0", "1"]) == 2
    assert "alpha and num_filter_banks are of the relaxed networks" in capsys.readouterr().err
