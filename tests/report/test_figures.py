"""The confusion-matrix picture decodes, shows what it should and is the same each time."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from biomedcoop.errors import UserError
from biomedcoop.evaluation.metrics import Metrics, score
from biomedcoop.report.figures import confusion_figure, draw_confusion, drawn


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


@pytest.mark.parametrize(("paper", "letters"), [("#ffffff", "#000000"), ("#12161c", "#ffffff")])
def test_figures_in_cells_have_contrast_on_light_and_dark_paper(paper, letters):
    style = (files("biomedcoop.report.html") / "templates" / "style.css").read_text(encoding="utf-8")
    assert re.search(rf"--paper: {paper};.*--letters: {letters};", style)
    over = np.array(to_rgb(paper))
    for right in range(101):  # a cell for each percent
        answers = [0] * right + [1] * (100 - right) + [1] * 20
        metrics = score(np.eye(2)[answers], [0] * 100 + [1] * 20, ["a", "b"], n_bootstrap=40)
        figure = drawn(lambda one, metrics=metrics: draw_confusion(one, metrics), (4, 4))
        (axes,) = figure.axes
        axes.collections[0].update_scalarmappable()
        for cell, text in zip(axes.collections[0].get_facecolors(), axes.texts, strict=True):
            background = cell[3] * cell[:3] + (1 - cell[3]) * over
            # letters without a colour of their own are black here and of the theme's colour in the page
            own = np.array(to_rgb("white" if text.get_color() == "white" else letters))
            opacity = 1 if text.get_alpha() is None else text.get_alpha()
            assert contrast(opacity * own + (1 - opacity) * background, background) >= 4.5, (right, text.get_text())


def contrast(one, other):
    """Contrast of two colours, by WCAG 2.2."""

    def luminance(colour):
        return sum(
            w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
            for w, c in zip((0.2126, 0.7152, 0.0722), colour, strict=True)
        )

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


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
from biomedcoop.report.figures import confusion_figure, draw_confusion, drawn
confusion_figure(e.score([[0.6, 0.4], [0.3, 0.7]], [0, 1], ["a", "b"], n_bootstrap=40), sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.png")], check=True)
