"""The case of one image: which sentences it agrees with, and which training images it resembles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.domain import unit
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.crops import Resize
from biomedcoop.data.images.sources import ImageInFile, ImageSource, as_source
from biomedcoop.data.sampling.leakage import digest
from biomedcoop.errors import ImageError, UserError, whole_number
from biomedcoop.evaluation.metrics import plain
from biomedcoop.explain.doubts import UNLIKE
from biomedcoop.explain.saliency import class_number
from biomedcoop.explain.sentences import ClassSentences, Floats, sentences_of, unit_features
from biomedcoop.explain.tables import Table, html_of
from biomedcoop.explain.training_images import TrainingImages, training_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Agreement(NamedTuple):
    """How far an image agrees with a sentence.

    Attributes:
        text: the sentence.
        cosine: cosine of the image's feature and the sentence's embedding.
        difference: the cosine less the image's mean cosine with the sentences of the other class of the pair; above 0, the sentence
            speaks for its own class.
        usual: mean cosine of the training images and the sentence, without copies of the image itself; None if there are none. Some
            sentences lie near every image.
    """

    text: str
    cosine: float
    difference: float
    usual: float | None


@dataclass(frozen=True)
class ClassAgreement:
    """How far an image agrees with the sentences of one class.

    Attributes:
        class_name: the class.
        probability: its probability.
        mean: mean cosine of the image and the sentences of the class; None if the backbone has no text tower.
        most, least: sentences that the image agrees with most and least, the extreme ones first; empty as above.
    """

    class_name: str
    probability: float
    mean: float | None = None
    most: tuple[Agreement, ...] = ()
    least: tuple[Agreement, ...] = ()


@dataclass(frozen=True)
class SimilarImage:
    """A training image that resembles the image.

    Attributes:
        key: its name in the dataset.
        class_name: its label.
        cosine: cosine of the two images' features.
        source: the image.
    """

    key: str
    class_name: str
    cosine: float
    source: ImageSource = field(repr=False)


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """The case for a prediction: its sentences and its most similar training images.

    Attributes:
        image: the image.
        name: its file name, or "image".
        predicted: the most probable class, and how far the image agrees with its sentences.
        rival: the same of the class it is compared with, by default the runner-up.
        difference: mean cosine with the predicted class's sentences less that with the rival's; None if the backbone has no text
            tower.
        similar: the most similar training images, most similar first, without copies of the image itself; empty if none were given.
        sentences: where the sentences come from; empty if there are none.
        unlike_training: True if the image is unlike the training images; None if the classifier cannot tell.
        image_size: side of the crops in the figure, px.
        resize: how an image becomes a crop.
        notes: what a reader must know.
    """

    image: ImageSource
    name: str
    predicted: ClassAgreement
    rival: ClassAgreement
    difference: float | None
    similar: tuple[SimilarImage, ...]
    sentences: str
    unlike_training: bool | None
    image_size: int
    resize: Resize
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        classes = " or ".join(f"{one.class_name} {one.probability:.2f}" for one in (self.predicted, self.rival))
        return f"Case({self.name!r}, {classes}, {len(self.similar)} similar training images)"

    def tables(self) -> list[Table]:
        """A table of the sentences and one of the similar training images, as far as there are any."""
        rows = tuple(
            (
                f"{of_class.class_name} ({of_class.probability:.2f})",
                side,
                one.text,
                f"{one.cosine:.3f}",
                f"{one.difference:+.3f}",
                *(() if one.usual is None else (f"{one.usual:.3f}",)),
            )
            for of_class in (self.predicted, self.rival)
            for side, listed in (("most", of_class.most), ("least", of_class.least))
            for one in listed
        )
        usual = ("usual",) * any(one.usual is not None for one in self.predicted.most)
        columns = ("class (probability)", "agrees", "sentence", "cosine", "difference", *usual)
        notes = ["Difference: the cosine less the image's mean cosine with the other class's sentences."]
        if usual:
            notes.append(
                "Usual: mean cosine of the training images and the sentence; some sentences lie near every image."
            )
        title = f"Sentences that the image agrees with most and least ({self.sentences})"
        tables = [Table(title, columns, rows, 2 + len(usual), tuple(notes))] if rows else []
        if self.similar:
            near = tuple((one.key, one.class_name, f"{one.cosine:.3f}") for one in self.similar)
            tables.append(Table("Most similar training images", ("image", "label", "cosine"), near, 1))
        return tables

    def figure(self) -> Figure:
        """The image beside its most similar training images, and the agreement with the sentences below.

        Raises:
            ImageError: one of the images can no longer be read.
        """
        from biomedcoop.explain.figures import case_figure

        return case_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values without images, floats rounded to 6 digits."""

        def of(one: ClassAgreement) -> dict[str, Any]:
            return {**vars(one), "most": [a._asdict() for a in one.most], "least": [a._asdict() for a in one.least]}

        values: dict[str, Any] = plain(
            {
                "image": self.name,
                "predicted": of(self.predicted),
                "rival": of(self.rival),
                "difference": self.difference,
                "similar": [{"key": s.key, "class_name": s.class_name, "cosine": s.cosine} for s in self.similar],
                "sentences": self.sentences,
                "unlike_training": self.unlike_training,
                "notes": self.notes,
            }
        )
        return values

    def _repr_html_(self) -> str:
        return html_of(f"{self.name}: {self.predicted.class_name}", self.tables(), self.notes)


def case(
    classifier: Classifier,
    image: Any,
    data: TrainingImages | Dataset | str | os.PathLike[str] | None = None,
    top: int = 3,
    prompts: str | os.PathLike[str] | None = None,
    rival: str | None = None,
) -> Case:
    """Explain the prediction of one image by sentences and by similar training images.

    Args:
        image: one image in any form that :meth:`Classifier.predict_proba` accepts.
        data: the run folder of the classifier, or the dataset it was trained on, which holds the training images to compare with;
            for many images, find them once with :func:`biomedcoop.explain.training_images.training_images`.
        top: number of sentences and of similar images to list.
        prompts: see :func:`biomedcoop.words`.
        rival: class to compare the predicted one with; the runner-up if it is None, or the predicted class itself.

    Raises:
        ImageError: the image cannot be read.
        UserError: ``image`` is not an image, there is no class ``rival``, the training images cannot be found, or the sentences
            cannot be used.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=2&val=0&test=1")
        >>> classifier = bc.fit(data, method="tip-adapter", shots=2)
        >>> found = bc.case(classifier, data.part("test").images[0], data, top=2)
        >>> len(found.predicted.most), len(found.rival.least), len(found.similar)
        (2, 2, 2)
    """
    top = whole_number("top", top, 3, 1)
    named = class_number(classifier, rival)
    source = classifier.reading.source(as_source(image))
    training = data if data is None or isinstance(data, TrainingImages) else training_images(classifier, data)
    chosen = _sentences(classifier, prompts)
    feature = _feature(classifier, source)
    probabilities = classifier.probabilities(feature[None])[0]
    x = unit(feature)
    best, second = (int(c) for c in np.argsort(-probabilities, kind="stable")[:2])
    second = second if named in (None, best) else named
    own = digest(source)
    others = None if training is None else training.without(own).features
    predicted, other = (ClassAgreement(classifier.class_names[c], float(probabilities[c])) for c in (best, second))
    notes = []
    if chosen is None:
        notes.append(f"There are no sentences: the backbone {classifier.backbone.name} has no text tower.")
    else:
        pair = [chosen.by_class[c] for c in (best, second)]
        predicted, other = _agreements(classifier, (predicted, other), pair, x, others, top)
        notes += [chosen.note] if chosen.note else []
    unlike = None if classifier.domain is None else bool(classifier.domain.unlike(feature[None])[0])
    if unlike:
        notes.append(UNLIKE)
    difference = None if predicted.mean is None or other.mean is None else predicted.mean - other.mean
    if difference is not None and difference < 0:
        notes.append(
            f"On average, the image agrees more with the sentences of {other.class_name}; the classifier decides otherwise."
        )
    similar: tuple[SimilarImage, ...] = ()
    if training is not None:
        similar = tuple(SimilarImage(*row) for row in training.without(own).most_similar(x, top))
        if own in training.digests:
            notes.append("The classifier has learned from this image; its similar training images leave it out.")
    return Case(
        image=source,
        name=Path(str(source)).name if isinstance(source, Path | ImageInFile) else "image",
        predicted=predicted,
        rival=other,
        difference=difference,
        similar=similar,
        sentences="" if chosen is None else chosen.origin,
        unlike_training=unlike,
        image_size=classifier.backbone.image_size,
        resize=classifier.backbone.resize,
        notes=tuple(notes),
    )


def _feature(classifier: Classifier, source: ImageSource) -> Any:
    """The raw feature [E] of one image."""
    from biomedcoop.features.stream import stream_features

    ((_, feature),) = stream_features(classifier.backbone, [source])
    if isinstance(feature, ImageError):
        raise feature
    return feature


def _sentences(classifier: Classifier, prompts: str | os.PathLike[str] | None) -> ClassSentences | None:
    """The sentences to compare with; None for a backbone without a text tower, which refuses those of the user."""
    if classifier.backbone.has_text_tower:
        return sentences_of(classifier, prompts)
    if prompts is not None:
        raise UserError(
            f"the image cannot be compared with {os.fspath(prompts)}: the backbone {classifier.backbone.name} has no text tower; "
            "leave prompts out"
        )
    return None


def _agreements(
    classifier: Classifier,
    classes: tuple[ClassAgreement, ClassAgreement],
    pair: Sequence[tuple[str, ...]],
    x: Floats,
    others: Floats | None,
    top: int,
) -> list[ClassAgreement]:
    """Both classes with the sentences that an image agrees with most and least.

    Args:
        pair: sentences of each class.
        x: unit-norm feature of the image [E].
        others: unit-norm features of the training images without copies of the image; None if there are none.
    """
    features = unit_features(classifier.backbone, pair)
    cosines = [rows @ x for rows in features]
    usual = [None if others is None or not len(others) else rows @ others.mean(0) for rows in features]
    means = [float(values.mean()) for values in cosines]
    return [_with_sentences(classes[k], pair[k], cosines[k], means[1 - k], usual[k], top) for k in range(len(classes))]


def _with_sentences(
    of_class: ClassAgreement,
    texts: tuple[str, ...],
    cosines: Floats,
    mean_of_other: float,
    usual: Floats | None,
    top: int,
) -> ClassAgreement:
    found = [
        Agreement(
            texts[i],
            float(cosines[i]),
            float(cosines[i]) - mean_of_other,
            None if usual is None else float(usual[i]),
        )
        for i in np.argsort(-cosines, kind="stable")
    ]
    least = found[max(top, len(found) - top) :]  # of few sentences, none is listed twice
    return replace(of_class, mean=float(cosines.mean()), most=tuple(found[:top]), least=tuple(reversed(least)))
