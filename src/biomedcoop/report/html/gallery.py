"""The images of a page: examples of each class, and test images with their answers, maps and similar training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.reading import read_image
from biomedcoop.errors import ImageError
from biomedcoop.evaluation.comparison import Predictions
from biomedcoop.evaluation.doubtful_labels import doubtful_labels
from biomedcoop.report.html.pictures import data_uri
from biomedcoop.report.html.sources import Sources

EXAMPLES, ERRORS, DOUBTFUL = 4, 6, 6
"""Images of each class, errors and doubtful labels that a page shows."""


@dataclass(frozen=True)
class Picture:
    """An image of the page as data, its description, and its class."""

    uri: str
    words: str
    label: str = ""


@dataclass(frozen=True)
class Case:
    """A test image with its label and its answer.

    Attributes:
        row: its row in ``predictions.csv``, from 1.
        name: its name, or an empty text.
        label, answer: class names.
        p_label, p_answer: their probabilities.
        picture, overlay: the image, and the map of the answer over it; None where they are left out.
    """

    row: int
    name: str
    label: str
    answer: str
    p_label: float
    p_answer: float
    picture: Picture | None = None
    overlay: Picture | None = None
    similar: tuple[Picture, ...] = ()
    sentences: str = ""
    cautions: tuple[str, ...] = ()


def examples(sources: Sources) -> dict[str, list[Picture]]:
    """The first training images of each class; of a run without training images, the first test images."""
    data = sources.data
    if data is None or sources.tested is None:
        return {}
    chosen = sources.tested if sources.drawn is None or not len(sources.drawn) else sources.drawn
    found = {}
    for k, name in enumerate(data.class_names):
        own = [int(i) for i in dict.fromkeys(chosen.tolist()) if data.labels[i] == k][:EXAMPLES]
        found[name] = [
            one for n, i in enumerate(own, 1) if (one := _picture(data, i, f"{name}, example {n}")) is not None
        ]
    return found


def confident_errors(predictions: Predictions, sources: Sources, *, images: bool) -> list[Case]:
    """The wrong answers of the saved run with the highest probability."""
    p, y = predictions.runs(predictions.method)[0], predictions.labels
    wrong = np.flatnonzero(p.argmax(axis=1) != y)
    chosen = wrong[np.argsort(-p[wrong].max(axis=1), kind="stable")][:ERRORS]
    rows = [(int(i), int(y[i]), int(p[i].argmax()), float(p[i, y[i]]), float(p[i].max())) for i in chosen]
    return _cases(rows, predictions, sources, images=images, maps=True)


def doubtful_cases(predictions: Predictions, sources: Sources, *, images: bool) -> tuple[list[Case], int]:
    """The test images whose label looks wrong, and their number; the page shows the first ones."""
    found = doubtful_labels(predictions)
    rows = [(d.image, d.label, d.answer, d.p_label, d.p_answer) for d in found[:DOUBTFUL]]
    return _cases(rows, predictions, sources, images=images, maps=False), len(found)


def _cases(
    rows: Sequence[tuple[int, int, int, float, float]],
    predictions: Predictions,
    sources: Sources,
    *,
    images: bool,
    maps: bool,
) -> list[Case]:
    names, data = predictions.class_names, sources.data if images else None
    cases = []
    for i, label, answer, p_label, p_answer in rows:
        picture = overlay = None
        cautions: tuple[str, ...] = ()
        if data is not None and sources.tested is not None:
            position = int(sources.tested[i])
            picture = _picture(data, position, f"Test image of {names[label]}, taken for {names[answer]}")
            if maps and picture is not None:
                overlay, cautions = _overlay(sources, position, names[answer])
        name = predictions.keys[i] if images else ""
        case = Case(i + 1, name, names[label], names[answer], p_label, p_answer, picture, overlay)
        cases.append(replace(case, cautions=cautions))
    return cases


def _picture(data: Dataset, position: int, words: str) -> Picture | None:
    """An image of the data; None if it cannot be read any more."""
    try:
        return Picture(data_uri(read_image(data.images[position], data.keys[position])), words)
    except ImageError:
        return None


def _overlay(sources: Sources, position: int, class_name: str) -> tuple[Picture | None, tuple[str, ...]]:
    return None, ()
