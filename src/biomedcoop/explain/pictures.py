"""Pictures of saliency maps: overlays with a colour bar, and the contact sheet that compares methods."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from biomedcoop.data.images.reading import read_image
from biomedcoop.drawing import drawing, new_figure
from biomedcoop.errors import ImageError
from biomedcoop.explain.kinds import MAPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from biomedcoop.explain.case import Case
    from biomedcoop.explain.saliency import SaliencyMap

Pixels = npt.NDArray[np.uint8]

COLOURS = "viridis"
"""A colour map that is perceptually uniform, and that people with any common colour blindness can read."""

STRONGEST = 0.65
"""Opacity of the colour where the map is 1; the image stays visible below it."""

UNSEEN, WASHED = 150.0, 0.7
"""Grey of the part that the model does not see, 0 to 255, and its share in the pixels there."""

MOST_PIXELS = 900
"""Longest side of an image in a figure, px."""

SENTENCES, SIMILAR = 2, 3
"""Sentences of each class, and similar training images, below a map."""

UNSEEN_NOTE = "Grey at the edges: not seen by the model."
NOT_A_DEVICE = "Not a medical device."


def overlay(image: Pixels, values: npt.NDArray[np.float32]) -> Pixels:
    """Lay a map over its image; what the model does not see is washed grey.

    The colours run from the map's own lowest value, transparent, to its highest.

    Args:
        image: uint8 [H, W, 3].
        values: float32 [H, W], at least 0; nan where the model does not see the image.

    Returns:
        uint8 [H, W, 3].
    """
    import matplotlib

    unseen = np.isnan(values)
    strength = in_range(values)
    colours = matplotlib.colormaps[COLOURS](strength, bytes=True)[..., :3].astype(np.float32)
    opacity = (STRONGEST * np.sqrt(strength))[..., None]
    mixed = (1 - opacity) * image + opacity * colours
    grey = image[unseen].mean(axis=1, keepdims=True)
    mixed[unseen] = (1 - WASHED) * grey + WASHED * UNSEEN
    return np.rint(mixed).astype(np.uint8)


def in_range(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A map scaled from its lowest value, 0, to its highest, 1; 0 where it is nan, and everywhere if it is flat."""
    seen = values[np.isfinite(values)]
    low, high = float(seen.min()), float(seen.max())
    scaled: npt.NDArray[np.float32] = np.nan_to_num((values - np.float32(low)) / np.float32(high - low or 1))
    return scaled


@drawing()
def map_figure(found: SaliencyMap, case: Case | None = None) -> Figure:
    """The image beside its overlay, with the class, its probability, and every reason for doubt; the case below."""
    height, width = found.image.shape[:2]
    tall = 3.5 * min(2.0, max(0.4, height / width))
    words = _foot([found], found.warnings, 110)
    tall += 0.9 + 0.16 * words.count("\n")
    part: Figure | SubFigure
    if case is None:
        part = figure = new_figure(8.0, tall)
    else:
        lines = _case_lines(case, found.warnings)
        low = max(0.2 + 0.14 * len(lines), 1.7 if case.similar else 0.0)
        figure = new_figure(8.0, tall + low, "constrained")
        part, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[tall, low])[:, 0]
        _write_case(below, case, lines)
    left, right = part.subplots(1, 2)
    _show(left, _at_most(found.image))
    _show(right, _at_most(found.overlay()))
    left.set_title(_wrapped(found.name or "image", 40), fontsize=9, parse_math=False)
    right.set_title(
        _wrapped(f"{found.class_name}: probability {found.probability:.2f}", 40), fontsize=9, parse_math=False
    )
    seen = found.values[np.isfinite(found.values)]
    _colour_bar(part, right, [f"{value:.2f}" for value in np.linspace(seen.min(), seen.max(), 5)])
    _write_title(part, found)
    part.supxlabel(words, fontsize=8, parse_math=False)
    return figure


@drawing()
def sheet_figure(rows: Sequence[Sequence[SaliencyMap]]) -> Figure:
    """Rows of images and columns of methods, all maps of one kind; each title gives the method's probability of the class.

    Numbers in the titles point to the reasons for doubt below the pictures.

    Args:
        rows: for each image the maps of every method, in the same order.
    """
    columns, shown = len(rows[0]) + 1, [found for row in rows for found in row]
    doubts = list(dict.fromkeys(warning for found in shown for warning in found.warnings))
    words = _foot(shown, [f"[{number}] {text}" for number, text in enumerate(doubts, start=1)], 25 * columns)
    figure = new_figure(2.1 * columns + 0.8, 2.45 * len(rows) + 0.8 + 0.16 * words.count("\n"))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for places, row in zip(axes, rows, strict=True):
        _show(places[0], _at_most(row[0].image))
        places[0].set_title(_wrapped(row[0].name or "image", 24), fontsize=8, parse_math=False)
        places[0].set_ylabel(_wrapped(row[0].class_name, 24), fontsize=8, parse_math=False)
        for place, found in zip(places[1:], row, strict=True):
            _show(place, _at_most(found.overlay()))
            marks = "".join(f" [{doubts.index(warning) + 1}]" for warning in found.warnings)
            title = f"{found.method}{marks}\nprobability {found.probability:.2f}"
            place.set_title(title, fontsize=8, parse_math=False)
    _colour_bar(figure, axes.ravel().tolist(), ["lowest", "", "", "", "highest"])
    _write_title(figure, rows[0][0])
    figure.supxlabel(words, fontsize=8, parse_math=False)
    return figure


def html_of(pixels: Pixels, words: str) -> str:
    """An image as an HTML element that needs no file; ``words`` describe it for readers who do not see it."""
    from html import escape

    content = io.BytesIO()
    Image.fromarray(_at_most(pixels)).save(content, "PNG")
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}">'


def _show(place: Axes, pixels: Pixels) -> None:
    place.imshow(pixels)
    place.set_xticks([])
    place.set_yticks([])


def _case_lines(case: Case, said: Sequence[str]) -> list[str]:
    """The sentences that the image agrees with most, two of each class, and the notes that are not said above."""
    texts = []
    for one in (case.predicted, case.rival):
        texts.append(f"{one.class_name} ({one.probability:.2f}): the image agrees most with")
        texts += [f"  {sentence.cosine:.3f}  {sentence.text}" for sentence in one.most[:SENTENCES]]
    texts += [note for note in case.notes if note not in said]
    width = 66 if case.similar else 120
    return [
        line
        for text in texts
        for line in textwrap.wrap(text, width, subsequent_indent="  ", max_lines=3, placeholder=" …")
    ]


def _write_case(part: SubFigure, case: Case, lines: Sequence[str]) -> None:
    """Lines on the left, and the similar training images on the right as far as they can be read."""
    part.text(0.02, 0.97, "\n".join(lines), fontsize=8, va="top", parse_math=False)
    for number, one in enumerate(case.similar[:SIMILAR]):
        try:
            image = read_image(one.source, one.key)
        except ImageError:  # gone or damaged since it was compared
            continue
        place = part.add_axes((0.6 + 0.135 * number, 0.22, 0.12, 0.64), anchor="N")
        _show(place, _at_most(np.asarray(image)))
        place.set_xlabel(f"{_wrapped(one.class_name, 18)}\ncosine {one.cosine:.3f}", fontsize=7, parse_math=False)
    if case.similar:
        part.text(0.6, 0.97, "most similar training images", fontsize=8, va="top")


def _colour_bar(figure: Figure | SubFigure, places: Any, labels: Sequence[str]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), COLOURS), ax=places, shrink=0.8, aspect=25)
    bar.set_ticks(np.linspace(0, 1, len(labels)).tolist(), labels=list(labels))
    bar.set_label("share of the map's maximum" if labels[1] else "value of each map", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def _write_title(figure: Figure | SubFigure, found: SaliencyMap) -> None:
    layer = f", layer {found.layer}" if found.layer else ""
    figure.suptitle(f"{MAPS[found.map].title}{layer}", fontsize=10, parse_math=False)


def _foot(shown: Sequence[SaliencyMap], doubts: Sequence[str], width: int) -> str:
    """What stands below the pictures: the reasons for doubt, and what is grey."""
    unseen = [UNSEEN_NOTE] if any(np.isnan(found.values).any() for found in shown) else []
    return "\n".join(_wrapped(text, width) for text in (*doubts, " ".join([*unseen, NOT_A_DEVICE])))


def _at_most(pixels: Pixels) -> Pixels:
    """An image made smaller by a whole number until no side exceeds :data:`MOST_PIXELS`."""
    factor = -(-max(pixels.shape[:2]) // MOST_PIXELS)
    return pixels if factor <= 1 else np.asarray(Image.fromarray(pixels).reduce(factor))


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, max_lines=4, placeholder=" …", break_long_words=True)
