"""The images of a page: examples of each class, and test images with their answers, maps and similar training images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.reading import read_image
from biomedcoop.errors import ImageError, UserError
from biomedcoop.evaluation.comparison import Predictions
from biomedcoop.evaluation.doubtful_labels import doubtful_labels
from biomedcoop.report.html.pictures import data_uri
from biomedcoop.report.html.sources import Sources

EXAMPLES, ERRORS, SIMILAR = 4, 6, 3
"""Training images of each class, errors, and similar training images of each error that a page shows."""

MAP = "grad-cam"
"""A quick map: one pass forward and one backward for each image."""


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
        similar: the most similar training images.
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
    doubtful: bool = False
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
    """The wrong answers of the saved run with the highest probability, with what the classifier sees in them."""
    p, y, names = predictions.runs(predictions.method)[0], predictions.labels, predictions.class_names
    wrong = np.flatnonzero(p.argmax(axis=1) != y)
    chosen = wrong[np.argsort(-p[wrong].max(axis=1), kind="stable")][:ERRORS].tolist()
    doubtful = {found.image for found in doubtful_labels(predictions)}
    cases = []
    for i in chosen:
        label, answer = names[y[i]], names[int(p[i].argmax())]
        one = Case(i + 1, "", label, answer, float(p[i, y[i]]), float(p[i].max()), doubtful=i in doubtful)
        if images and sources.tested is not None:
            one = _seen(one, predictions.keys[i], int(sources.tested[i]), sources)
        cases.append(one)
    return cases


def _seen(one: Case, key: str, position: int, sources: Sources) -> Case:
    """The case with its image, the map of its answer, similar training images and sentences, as far as they are at hand."""
    from PIL import Image

    from biomedcoop.classifier.domain import unit
    from biomedcoop.explain.saliency import saliency
    from biomedcoop.features.images import encode_images

    data, classifier = sources.data, sources.classifier
    assert data is not None
    picture = _picture(data, position, f"Test image of {one.label}, taken for {one.answer}")
    one = replace(one, name=key, picture=picture)
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
        one = replace(one, cautions=cautions)
    except UserError as error:  # a backbone without maps
        one = replace(one, cautions=(f"There is no map: {error}.",))
    if sources.training is None:
        return one
    feature = unit(encode_images(classifier.backbone, data.select([position])))[0]
    near = [
        Picture(data_uri(read_image(source, key), edge=80), f"Training image of {name}", name)
        for key, name, _, source in sources.training.most_similar(feature, SIMILAR)
    ]
    return replace(one, similar=tuple(near))


def _picture(data: Dataset, position: int, words: str) -> Picture | None:
    """An image of the data; None if it cannot be read any more."""
    try:
        return Picture(data_uri(read_image(data.images[position], data.keys[position])), words)
    except ImageError:
        return None
