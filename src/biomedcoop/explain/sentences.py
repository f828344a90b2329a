"""The sentences that explain a classifier: those it was trained with, else those of the library or of a user's file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.domain import unit
from biomedcoop.prompts.sentences import sentences_for

if TYPE_CHECKING:
    from biomedcoop.backbones.base import Backbone

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassSentences:
    """Sentences about the classes of a classifier.

    Attributes:
        by_class: C lists in the order of the classes.
        origin: where they come from, e.g. "library: busi (ultrasound, breast)".
        own: True for the sentences that the classifier was made with.
    """

    by_class: tuple[tuple[str, ...], ...]
    origin: str
    own: bool

    @property
    def note(self) -> str:
        """What a reader must know about the sentences; empty for a classifier's own."""
        return (
            ""
            if self.own
            else f"The sentences ({self.origin}) are for comparison; the classifier did not learn from them."
        )


def sentences_of(classifier: Classifier, prompts: str | os.PathLike[str] | None = None) -> ClassSentences:
    """The sentences about a classifier's classes.

    Args:
        prompts: sentences to use, see :func:`biomedcoop.prompts.sentences_for`; None takes the classifier's own, or those that
            training would choose for its classes.

    Raises:
        UserError: the sentences cannot be read, or lack a class.
    """
    facts, names = classifier.facts, classifier.class_names
    kept = facts.get("sentences_by_class") or {}
    if prompts is None and all(name in kept for name in names):
        return ClassSentences(tuple(tuple(kept[name]) for name in names), facts["sentences"], own=True)
    dataset = facts.get("benchmark_dataset") or facts.get("dataset")
    found = sentences_for(names, dataset, os.fspath(prompts or "auto"), facts.get("modality"), facts.get("organ"))
    # an artefact of an earlier version names its sentences and does not hold them
    count = facts.get("sentences_per_class") or len(found.by_class[0])
    same = not kept and found.source.startswith(("library", "templates: ")) and found.origin == facts.get("sentences")
    by_class = tuple(texts[:count] for texts in found.by_class) if same else found.by_class
    return ClassSentences(by_class, found.origin, own=same)


def unit_features(backbone: Backbone, by_class: Sequence[Sequence[str]]) -> list[Floats]:
    """Unit-norm features [P, E] of the sentences of each class, through the feature store."""
    from biomedcoop.features.texts import encode_texts

    rows = unit(encode_texts(backbone, [text for texts in by_class for text in texts]))
    return np.split(rows, np.cumsum([len(texts) for texts in by_class])[:-1])
