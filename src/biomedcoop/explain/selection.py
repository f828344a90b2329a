"""What the sentence selection of BiomedCoOp did in training, as recorded in a classifier's state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from biomedcoop.classifier.classifier import Classifier


class SentenceUse(NamedTuple):
    """What the sentence selection of BiomedCoOp did with one sentence index, which holds a sentence of every class.

    Attributes:
        number: its place among the sentences of a class, from 1.
        score: mean over the training images of the largest logit that its sentences reach.
        z: standardised score; the selection drops an index with an absolute value above τ.
        kept: share of the training steps that kept the index.
        texts: C sentences.
    """

    number: int
    score: float
    z: float
    kept: float
    texts: tuple[str, ...]


def sentence_selection(classifier: Classifier, by_class: Sequence[Sequence[str]]) -> tuple[SentenceUse, ...]:
    """What the selection did in the training of a classifier; empty if its state does not hold it.

    Args:
        by_class: the sentences that the classifier was trained with, C lists of P.
    """
    from biomedcoop.methods.biomedcoop import SENTENCE_KEPT, SENTENCE_SCORE
    from biomedcoop.methods.selection import z_scores

    score, kept = classifier.state.get(SENTENCE_SCORE), classifier.state.get(SENTENCE_KEPT)
    if score is None or kept is None or len(score) != len(by_class[0]):
        return ()
    values = zip(score.tolist(), z_scores(score).tolist(), kept.tolist(), zip(*by_class, strict=True), strict=True)
    return tuple(SentenceUse(number, *row) for number, row in enumerate(values, start=1))
