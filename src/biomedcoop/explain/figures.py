"""Figures of the explanations: class similarities, and the case of an image."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from biomedcoop.drawing import drawing, new_figure
from biomedcoop.errors import UserError
from biomedcoop.output import check_new_file, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from biomedcoop.explain.case import Case
    from biomedcoop.explain.words import Words


def check_figure_file(path: Path, overwrite: bool) -> None:
    """Check before long work that a figure can be written.

    Raises:
        UserError: the ending is not .png or .pdf, the file exists (unless ``overwrite``), or its folder cannot be written to.
    """
    if path.suffix.lower() not in (".png", ".pdf"):
        raise UserError(f"{path}: figures are written to .png or .pdf; choose one of these endings")
    check_new_file(path, overwrite)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or PDF by the ending of the file, which appears when it is complete."""
    content = io.BytesIO()
    with drawing():
        figure.savefig(content, format=path.suffix.lower()[1:], dpi=150)
    write_atomically(path, content.getvalue())


@drawing()
def similarity_figure(words: Words) -> Figure:
    """Class similarities of the template and of the classifier side by side, with one colour scale.

    Raises:
        UserError: the method has no class embeddings.
    """
    if words.before is None or words.after is None:
        raise UserError(
            f"no figure: {words.title} has no class embeddings; a method that learns text has, e.g. biomedcoop"
        )
    c = len(words.class_names)
    names = [_short(name) for name in words.class_names]
    side = max(2.6, 0.6 * c)
    figure = new_figure(2 * side + 2.6, side + 1.6)
    axes = figure.subplots(1, 2, sharey=True)
    # embeddings of names that a tokenizer cannot tell apart are equal: their cosines are 1, or above it by rounding
    lowest = min(float(words.before.min()), float(words.after.min()), 0.99)
    titles = f"before: '{words.template}'", f"after: {words.title}"
    for place, cosines, title in zip(axes, (words.before, words.after), titles, strict=True):
        image = place.imshow(cosines, cmap="viridis", vmin=lowest, vmax=1)
        place.set_title(title, fontsize=9, parse_math=False)
        place.set_xticks(range(c), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8, parse_math=False)
        place.set_yticks(range(c), names, fontsize=8, parse_math=False)
        place.tick_params(length=0)
        if c <= 12:
            for (row, column), cosine in np.ndenumerate(cosines):
                light = cosine > (lowest + 1) / 2
                place.text(
                    column,
                    row,
                    f"{cosine:.2f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="black" if light else "white",
                )
    figure.colorbar(image, ax=axes, shrink=0.8, label="cosine of class embeddings")
    return figure


@drawing()
def case_figure(case: Case) -> Figure:
    """The image and its similar training images in a row; below, the cosines of the listed sentences.

    Raises:
        ImageError: one of the images can no longer be read.
    """
    from biomedcoop.data.images.crop_reader import CropReader

    shown = [
        (case.image, f"predicted {_short(case.predicted.class_name)}\nprobability {case.predicted.probability:.2f}")
    ]
    shown += [(one.source, f"labelled {_short(one.class_name)}\ncosine {one.cosine:.3f}") for one in case.similar]
    bars = [
        (one, colour)
        for of_class, colour in ((case.predicted, "C0"), (case.rival, "C1"))
        for one in (*of_class.most, *reversed(of_class.least))
    ]
    heights = [2.6, *([0.35 * len(bars) + 0.8] if bars else [])]  # no bars: the backbone has no text tower
    figure = new_figure(9, sum(heights), "constrained")
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
    with CropReader(case.image_size, workers=0, resize=case.resize) as read:
        for column, (source, title) in enumerate(shown, start=1):
            place = parts[0, 0].add_subplot(1, max(4, len(shown)), column)
            place.imshow(read(source).crops[0])
            place.set_xlabel(title, fontsize=8, parse_math=False)
            place.set_xticks([])
            place.set_yticks([])
    if not bars:
        return figure
    axes = parts[1, 0].subplots()
    texts = [textwrap.fill(one.text, 60) for one, _ in bars]
    axes.barh(range(len(bars)), [one.cosine for one, _ in bars], color=[colour for _, colour in bars])
    if case.similar:
        usual = [one.usual for one, _ in bars]
        axes.plot(usual, range(len(bars)), "k|", markersize=14, label="mean of the training images")
    axes.set_yticks(range(len(bars)), texts, fontsize=7, parse_math=False)
    axes.invert_yaxis()
    for of_class, colour in ((case.predicted, "C0"), (case.rival, "C1")):
        axes.axvline(
            of_class.mean or 0.0, color=colour, linestyle="--", linewidth=1, label=f"mean of {of_class.class_name}"
        )
    axes.set_xlabel("cosine of the image and the sentence")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
