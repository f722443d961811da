"""What gconv-ext report says of rows whose numbers are known."""

import json
from dataclasses import asdict, replace

import pytest

from gconv_ext.experiments import report
from gconv_ext.experiments.report import write_report
from gconv_ext.experiments.report_figures import mean_and_error
from gconv_ext.experiments.targets import expand, load_target


def lines(text, *cells):
    """The cells of the lines of a table that begin with these."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [line for line in found if line[: len(cells)] == list(cells)]


def write_rows(folder, name, accuracy, validation):
    """A results file at scale 0.2 with three seeds; accuracy and validation are functions of the configuration."""
    target = load_target(name)
    rows = [
        {
            "name": config.name, "config": asdict(config) | {"data": "x"}, "parameters": 1, "seconds_per_epoch": 1.0,
            "reproduce": {"scale": 0.2, "images": 11_000, "all_images": 55_000, "wall_seconds": 60.0},
            "data": {"origin": "somewhere"}, "versions": dict(device="D", threads=1, torch="2", commit="abc"),
            "epochs": [{"train_accuracy": 0.5, "validation_accuracy": validation(config), "validation_loss": 1.0}] * config.epochs,
            "test_noisy_accuracy": accuracy(config), "test_clean_accuracy": 0.5,
        }
        for _, config in expand(target, 55_000, scale=0.2, seeds=3)
    ]  # fmt: skip
    (folder / target.folder).mkdir()
    (folder / target.folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_validation_split_chooses(tmp_path):
    """α = 0.01 is best on the test split and 1e-5 on the validation split: this is the one that is chosen."""

    def accuracy(config):
        shift = {0.01: 0.2, 1e-5: 0.1}.get(config.alpha, 0) + (0.1 if config.model == "p4" and config.noise == "radial" else 0)
        return 0.5 + shift + 0.01 * config.seed + (0.001 * config.seed if config.model == "relaxed" else 0)

    write_rows(tmp_path, "paper1-beyond", accuracy, lambda config: 0.9 if config.alpha == 1e-5 else 0.8)
    write_report(tmp_path, tmp_path)
    text = (tmp_path / "report.md").read_text().split("Does relaxing")[1]
    chosen = {line[1]: line[5] for line in lines(text, "4") if line[2:4] == ["aniso", "0"]}
    assert chosen == {"0.0001": "no", "0": "no", "1e-05": "yes", "0.001": "no", "0.01": "no"}
    # Differences of the same seeds: 10 + 0, 0.1 and 0.2, of standard error 0.1 / √3.
    best, = lines(text, "4", "1e-05")
    assert best[4:] == ["90.00", "yes", "61.10 ± 0.64", "51.00 ± 0.58", "+10.10 ± 0.06", "relaxed"]
    assert [line[-2:] for line in lines(text, "4", "0.0001", "radial")] == [["−9.90 ± 0.06", "p4"]]
    assert [line[-2:] for line in lines(text, "12", "0.0001")] == [["+0.10 ± 0.06", "undecided"]]  # less than two errors


def test_published_numbers_stand_beside_ours(tmp_path):
    write_rows(tmp_path, "paper1-table1", lambda config: 0.9607 + 0.001 * (config.seed - 1), lambda config: 0.5)
    write_report(tmp_path, tmp_path)
    text = (tmp_path / "report.md").read_text()
    line, = lines(text, "aniso", "0.2", "p4")
    assert line[3:] == ["3", "96.07 ± 0.06", "95.97", "**+0.10**", "50.00 ± 0.00", "93.84", "**−43.84**"]
    assert len(lines(text, "aniso")) == 9 + 3 and len(lines(text, "none")) == 3 + 1  # the table and the comparison
    assert "Scale 0.2: 11,000 training images, 4 epochs, batches of 16, 3 seeds; 63 runs of 21 settings. Data: somewhere." in text
    assert "Commit abc. 1.1 hours" in text and "--scale 0.2 --seeds 3 --data-dir DIR" in text
    for name in ("paper1-table1.png", "paper1-fig3-curves.png", "paper1-fig4-curves.png", "paper1-fig5-curves.png"):
        assert f"]({name})" in text and (tmp_path / name).exists()


def test_the_remark_of_a_target_stands_below_its_table(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "load_target", lambda name: replace(load_target(name), remark="Why so.\n"))
    write_rows(tmp_path, "paper1-table1", lambda config: 0.9, lambda config: 0.5)
    write_report(tmp_path, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "\n\nWhy so.\n\n" in text and text.index("| none |") < text.index("Why so.") < text.index("](paper1-table1.png)")


def test_mean_and_error():
    assert mean_and_error([1.0]) == (1.0, None)
    mean, error = mean_and_error([1.0, 2.0, 3.0])
    assert mean == 2 and error == pytest.approx(1 / 3**0.5)
