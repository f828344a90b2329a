"""The sentences near the embedding of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from biomedcoop.explain.sentences import Floats


class NearSentence(NamedTuple):
    """A sentence near a class embedding.

    Attributes:
        text: the sentence.
        class_name: the class it is about.
        cosine: cosine of its embedding and the class embedding.
        difference: the cosine less the mean cosine of the sentence with the other classes' embeddings.
    """

    text: str
    class_name: str
    cosine: float
    difference: float


Listed = tuple[tuple[NearSentence, ...], ...]
"""For each class some sentences of any class, the first ones first."""


def near_sentences(
    classes: Floats, features: Sequence[Floats], class_names: Sequence[str], by_class: Sequence[Sequence[str]], top: int
) -> tuple[Listed, Listed]:
    """For each class the sentences of the largest cosine, and those of the largest difference from the other classes.

    Args:
        classes: unit-norm class embeddings [C, E].
        features: unit-norm embeddings [P, E] of the sentences of each class.
        class_names, by_class: the names and the sentences.
        top: number of sentences for each class.
    """
    about = [(text, name) for name, texts in zip(class_names, by_class, strict=True) for text in texts]
    cosines = classes @ np.concatenate(features).T  # [C, all sentences]
    differences = cosines - (cosines.sum(0) - cosines) / (len(classes) - 1)

    def largest(values: Floats) -> Listed:
        order = np.argsort(-values, axis=1, kind="stable")[:, :top]
        return tuple(
            tuple(NearSentence(about[i][0], about[i][1], float(cosines[c, i]), float(differences[c, i])) for i in row)
            for c, row in enumerate(order)
        )

    return largest(cosines), largest(differences)
