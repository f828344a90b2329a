"""The images of a page: examples of each class, and test images with their answers, maps and similar training images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from biomedcoop.data.images.reading import read_image
from biomedcoop.data.images.sources import ImageSource
from biomedcoop.errors import ImageError, UserError
from biomedcoop.evaluation.comparison import Predictions
from biomedcoop.evaluation.doubtful_labels import doubtful_labels
from biomedcoop.report.html.pictures import EDGE, data_uri
from biomedcoop.report.html.sources import Sources

if TYPE_CHECKING:
    from biomedcoop.explain.case import Case

EXAMPLES, ERRORS, SIMILAR = 4, 6, 3
"""Training images of each class, errors, and similar training images of each error that a page shows."""

CHANGED = "This image has changed since the test, so it is not shown: the model now answers otherwise."
ROUNDING = 0.02

MAP = "grad-cam"
"""A quick map: one pass forward and one backward for each image."""


@dataclass(frozen=True)
class Picture:
    """An image of the page as data, its description, and its class."""

    uri: str
    words: str
    label: str = ""


@dataclass(frozen=True)
class WrongAnswer:
    """A test image with its label and its wrong answer.

    Attributes:
        row: its row in ``predictions.csv``, from 1.
        name: its name, or an empty text.
        label, answer: class names.
        p_label, p_answer: their probabilities.
        picture, overlay: the image, and the map of the answer over it; None where they are left out.
        similar: the most similar training images.
        case: how far the image agrees with the sentences of the answer and of the label; None if there is no model or no image.
        doubtful: True if the label looks wrong.
        cautions: reasons not to trust the map, a sentence each.
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
    case: Case | None = None
    doubtful: bool = False
    cautions: tuple[str, ...] = ()


def examples(sources: Sources) -> dict[str, list[Picture]]:
    """The first training images of each class; of a run without training images, the first test images."""
    data = sources.data
    if data is None or sources.tested is None:
        return {}
    chosen = sources.tested[sources.tested >= 0] if sources.drawn is None or not len(sources.drawn) else sources.drawn
    found = {}
    for k, name in enumerate(data.class_names):
        own = [int(i) for i in dict.fromkeys(chosen.tolist()) if data.labels[i] == k][:EXAMPLES]
        found[name] = [
            one
            for n, i in enumerate(own, 1)
            if (one := _picture(data.images[i], data.keys[i], f"{name}, example {n}")) is not None
        ]
    return found


def confident_errors(predictions: Predictions, sources: Sources, *, images: bool) -> list[WrongAnswer]:
    """The wrong answers of the first run with the highest probability, with what the classifier sees in them.

    In a cross-validation, other classifiers gave the answers, and the saved one may have learned from the images: they stand alone.
    """
    if predictions.folds is not None:
        sources = replace(sources, classifier=None, training=None)
    p, y, names = predictions.runs(predictions.method)[0], predictions.labels, predictions.class_names
    wrong = np.flatnonzero(p.argmax(axis=1) != y)
    chosen = wrong[np.argsort(-p[wrong].max(axis=1), kind="stable")][:ERRORS].tolist()
    doubtful = {found.image for found in doubtful_labels(predictions)}
    cases = []
    for i in chosen:
        label, answer = names[y[i]], names[int(p[i].argmax())]
        one = WrongAnswer(i + 1, "", label, answer, float(p[i, y[i]]), float(p[i].max()), doubtful=i in doubtful)
        position = -1 if sources.tested is None else int(sources.tested[i])
        if position >= 0:
            one = _with_case(one, position, sources)
            if one.case is not None and not _is_answer_of(one, one.case):
                one = replace(one, case=None, cautions=(CHANGED,), name=predictions.keys[i] if images else "")
            elif images:
                one = _seen(one, predictions.keys[i], position, sources)
        cases.append(one)
    return cases


def _seen(one: WrongAnswer, key: str, position: int, sources: Sources) -> WrongAnswer:
    """The answer with its image, the map of its answer and its similar training images, as far as they are at hand."""
    from PIL import Image

    from biomedcoop.explain.saliency import saliency

    data, classifier = sources.data, sources.classifier
    assert data is not None
    picture = _picture(data.images[position], key, f"Test image of {one.label}, taken for {one.answer}")
    one = replace(one, name=key, picture=picture)
    if one.case is not None:
        near = [
            _picture(s.source, s.key, f"Training image of {s.class_name}", s.class_name, edge=80)
            for s in one.case.similar
        ]
        one = replace(one, similar=tuple(picture for picture in near if picture is not None))
    if picture is None or classifier is None:
        return one
    image = data.images[position]
    try:
        (found,) = saliency(classifier, image, one.answer, MAP, progress=False)
        cautions = found.warnings
        if found.values.any():
            words = f"The same image with the map of {one.answer} over it"
            one = replace(one, overlay=Picture(data_uri(Image.fromarray(found.overlay())), words))
        else:
            cautions = (*cautions, "'biomedcoop explain' makes other maps of it, which take longer.")
        return replace(one, cautions=cautions)
    except UserError as error:  # a backbone without maps
        return replace(one, cautions=(f"There is no map: {error}.",))


def _with_case(one: WrongAnswer, position: int, sources: Sources) -> WrongAnswer:
    """The answer with the sentences and the training images that its image agrees with, as far as they are at hand."""
    from biomedcoop.explain.case import case

    assert sources.data is not None
    if sources.classifier is None:
        return one
    try:
        image = sources.data.images[position]
        return replace(one, case=case(sources.classifier, image, sources.training, SIMILAR, rival=one.label))
    except ImageError:  # gone since the test
        return one


def _is_answer_of(one: WrongAnswer, found: Case) -> bool:
    """Whether the image still has the answer that the test wrote down, apart from rounding in other precisions and machines."""
    return found.predicted.class_name == one.answer and abs(found.predicted.probability - one.p_answer) < ROUNDING


def _picture(source: ImageSource, key: str, words: str, label: str = "", edge: int = EDGE) -> Picture | None:
    """An image; None if it cannot be read any more."""
    try:
        return Picture(data_uri(read_image(source, key), edge=edge), words, label)
    except ImageError:
        return None
