"""The confusion-matrix picture decodes, shows what it should and is the same each time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from biomedcoop.errors import UserError
from biomedcoop.evaluation.metrics import Metrics, score
from biomedcoop.report.figures import confusion_figure


def metrics_of(class_names: list[str]) -> Metrics:
    rng = np.random.default_rng(0)
    labels = np.arange(150) % len(class_names)
    logits = rng.normal(size=(150, len(class_names))) + 1.5 * np.eye(len(class_names))[labels]
    return score(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels, class_names, n_bootstrap=40)


@pytest.mark.parametrize("classes", [2, 7, pytest.param(20, marks=pytest.mark.slow)])
def test_figures_decode_and_grow_with_the_classes(classes, tmp_path):
    names = [f"${k}_{{$: a long name that has to be wrapped and cut somewhere" for k in range(classes)]
    confusion_figure(metrics_of(names), tmp_path / "c.png", "a title that is quite long for a small figure: $_{$")
    with Image.open(tmp_path / "c.png") as image:
        image.load()
        assert image.format == "PNG"
        assert "Software" not in image.info
        assert 500 < image.width < 3000
        assert image.width > classes * 80
        assert 400 < image.height < 3000


def test_bytes_are_equal_whatever_the_global_settings(tmp_path):
    import matplotlib as mpl

    m = metrics_of(["benign", "malignant", "normal"])
    confusion_figure(m, tmp_path / "a.png", "busi")
    with mpl.rc_context({"font.size": 20, "savefig.dpi": 30, "axes.facecolor": "red"}):
        confusion_figure(m, tmp_path / "b.png", "busi")
        assert mpl.rcParams["font.size"] == 20
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_colours_show_shares_of_the_true_class_in_rows(tmp_path):
    answers = [1] * 10 + [0] * 3 + [1] * 7  # all of a taken for b, 3 of 10 b for a
    confusion_figure(score(np.eye(2)[answers], [0] * 10 + [1] * 10, ["a", "b"], n_bootstrap=40), tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int).sum(axis=2)

    def cell(row, column):  # a spot in the cell away from its text
        return pixels[int((0.12, 0.55)[row] * len(pixels)), int((0.2, 0.6)[column] * pixels.shape[1])]

    assert cell(0, 1) < cell(1, 1) < cell(1, 0) < cell(0, 0)


def test_a_class_without_test_images_draws(tmp_path):
    confusion_figure(score(np.eye(3)[[0, 1, 2]], [0, 1, 1], ["a", "b", "c"], n_bootstrap=40), tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 5000


def test_a_figure_that_cannot_be_written_leaves_nothing(tmp_path):
    m = metrics_of(["a", "b"])
    with pytest.raises(UserError, match="cannot write"):
        confusion_figure(m, tmp_path / "missing" / "c.png")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        confusion_figure(m, tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_importing_is_light_and_pyplot_is_never_loaded(tmp_path):
    code = """
import sys
import biomedcoop.report.markdown, biomedcoop.report.terminal, biomedcoop.evaluation.metrics as e
heavy = {"matplotlib", "rich", "torch", "sklearn", "PIL"} & set(sys.modules)
assert not heavy, heavy
from biomedcoop.report.figures import confusion_figure
confusion_figure(e.score([[0.6, 0.4], [0.3, 0.7]], [0, 1], ["a", "b"], n_bootstrap=40), sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.png")], check=True)
