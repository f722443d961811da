"""Pictures of single targets, drawn from rows of the form that its experiments write; what they show is looked at by eye."""

import numpy as np
import pytest

from gconv_ext.experiments import report_pictures
from gconv_ext.experiments.targets import expand, load_target

RNG = np.random.default_rng(0)


def row(config, exact):
    angles, stages, epochs = np.linspace(0, 350, 36), ("stem", "stage1"), range(3)
    return {
        "config": vars(config), "exact": exact,
        "epochs": [{"epoch": n, "validation_accuracy": RNG.random()} for n in epochs],
        "test_accuracy_by_angle": {"degrees": angles.tolist(), "accuracy": RNG.random(36).tolist()},
        "equivariance_errors": [{"epoch": n, **{stage: RNG.random() for stage in stages}} for n in range(4)],
        "filter": RNG.random((3, 3)).tolist(), "maps": {name: RNG.random((4, 16, 16)).tolist() for name in ("f", "g")},
    }  # fmt: skip


@pytest.mark.parametrize("name, seeds", [("paper3-fig3", 1), ("paper3-fig4", 2), ("paper3-fig5", 2), ("paper3-fig6", 1)])
def test_pictures(name, seeds, tmp_path, monkeypatch):
    """Each picture is drawn, with a panel for each of what differs, and lines with the means over the seeds."""
    target = load_target(name)
    runs = expand(target, 10_000, seeds=seeds)
    by_settings = [
        (settings, [row(run.config, settings["size"] % 2 == 0) for run in runs if run.settings == settings])
        for settings in target.grid
    ]
    figures, save = [], report_pictures.save
    monkeypatch.setattr(report_pictures, "save", lambda figure, path: figures.append(figure) or save(figure, path))
    (picture,) = target.pictures
    path = report_pictures.PICTURES[picture](target, by_settings, tmp_path / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    axes = figures[0].axes
    if picture == "maps":
        assert len(axes) == 6 and [axis.get_title() for axis in axes[::3]] == ["size 32: filter", "size 33: filter"]
    elif picture == "stages":
        assert len(axes) == 4 and [axis.get_title() for axis in axes[:2]] == [
            "p4_resnet44, size 32, exact", "p4_resnet44, size 33, approximate"
        ]  # fmt: skip
        errors = [[one["equivariance_errors"][2]["stem"] for one in rows] for _, rows in by_settings]
        assert [axis.lines[0].get_ydata()[2] for axis in axes[:2]] == pytest.approx(np.mean(errors, 1))
    else:
        assert len(axes) == (2 if name == "paper3-fig6" else 1) and all(len(axis.lines) == 4 for axis in axes)
        curves = [one["test_accuracy_by_angle"]["accuracy"] for one in by_settings[0][1]]
        assert axes[0].lines[0].get_ydata() == pytest.approx(100 * np.mean(curves, 0))


def test_probabilities(tmp_path, monkeypatch):
    target, drawn = load_target("paper4-fig4"), []
    runs = expand(target, 10_000, seeds=2)
    by_settings = [
        (settings, [
            {"config": vars(run.config), "probability_of_six": RNG.random(36).tolist()} for run in runs if run.settings == settings
        ])
        for settings in target.grid
    ]  # fmt: skip
    draw = report_pictures.sixes_figures.draw_curves
    monkeypatch.setattr(report_pictures.sixes_figures, "draw_curves", lambda rows, path: drawn.extend(rows) or draw(rows, path))
    path = report_pictures.PICTURES["probabilities"](target, by_settings, tmp_path / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [(row["config"]["group"], row["config"]["model"], row["config"]["seed"]) for row in drawn] == [
        (group, model, seed) for group in ("SE2", "E2") for model in ("strict", "partial") for seed in (0, 1)
    ]


@pytest.mark.parametrize("name, panels", [("paper4-fig5", 2), ("paper4-fig6", 1)])
def test_subsets(name, panels, tmp_path, monkeypatch):
    """A line for each number of rotations, and one more where there are mirrors; the means over the seeds."""
    target, figures, save = load_target(name), [], report_pictures.save
    monkeypatch.setattr(report_pictures, "save", lambda figure, path: figures.append(figure) or save(figure, path))
    runs = expand(target, 10_000, seeds=2)
    by_settings = [
        (settings, [
            {"subsets": [
                {"layer": layer, "extent": RNG.random(), "mirror": RNG.random() if settings["group"] == "E2" else None}
                for layer in ("conv1", "conv2", "last")
            ]}
            for run in runs if run.settings == settings
        ])
        for settings in target.grid
    ]  # fmt: skip
    path = report_pictures.PICTURES["subsets"](target, by_settings, tmp_path / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    axes = figures[0].axes
    assert [len(axis.containers) for axis in axes] == [3, 4][:panels]
    means = np.mean([[layer["extent"] for layer in row["subsets"]] for row in by_settings[0][1]], 0)
    assert axes[0].containers[0].lines[0].get_ydata() == pytest.approx(means)
